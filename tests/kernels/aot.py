"""Compile kernels ahead of time, for devices that need not be there, and read what they use.

As a script: `python aot.py TARGET < specs.json`, one line of JSON for each spec. It wants a process
of its own, without TRITON_INTERPRET, since kernels must be real ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Spec(NamedTuple):
    """One way to compile a kernel.

    Attributes
    ----------
    kernel
        Where it stands, `"module:name"`.
    constexprs
        Values of the arguments known to the compiler: None for a pointer that is left out,
        `"tl.bfloat16"` for a type.
    pointers
        Element types of the pointers, such as `"bf16"`.
    warps, stages
        Of the launch; on AMD half as many warps, twice as wide, and one stage.
    """

    kernel: str
    constexprs: Mapping[str, Any]
    pointers: Mapping[str, str]
    warps: int
    stages: int


class Resources(NamedTuple):
    """Shared memory of a program, and spilled bytes and registers of a thread."""

    shared: int
    spill_bytes: int
    registers: int


def compile_spec(spec: Spec, target: str) -> Resources:
    """Compile for one of `TARGETS`; what is neither pointer nor constant is a 32-bit integer."""
    module, _, name = spec.kernel.partition(":")
    kernel = getattr(import_module(module), name)
    signature, constants, attributes = {}, {}, {}
    for place, param in enumerate(kernel.params):
        if param.name in spec.constexprs:
            signature[param.name] = "constexpr"
            constants[(place,)] = _value(spec.constexprs[param.name])
        elif param.name in spec.pointers:
            signature[param.name] = f"*{spec.pointers[param.name]}"
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif param.do_not_specialize:
            signature[param.name] = "i32"
        else:
            raise ValueError(f"`{param.name}` would compile {name} anew for every kind of value.")
    amd = TARGETS[target].backend == "hip"
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes),
        target=TARGETS[target],
        options={
            "num_warps": max(1, spec.warps // 2) if amd else spec.warps,
            "num_stages": 1 if amd else spec.stages,
            "enable_fp_fusion": True,
        },
    )
    read = _read_amd if amd else _read_nvidia
    return Resources(compiled.metadata.shared, *read(compiled.asm))


def _value(x: Any) -> Any:
    return getattr(tl, x.removeprefix("tl.")) if isinstance(x, str) and x[:3] == "tl." else x


def _read_nvidia(asm: Mapping[str, Any]) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(asm["cubin"])
        done = subprocess.run(
            [tool, "-res-usage", path], capture_output=True, text=True, check=True
        )
    # What does not fit into the registers goes to the stack, for which these kernels have no
    # other use.
    return int(_only(r"STACK:(\d+)", done.stdout)), int(_only(r"REG:(\d+)", done.stdout))


def _read_amd(asm: Mapping[str, Any]) -> tuple[int, int]:
    spilled = int(_only(r"\.vgpr_spill_count:\s*(\d+)", asm["amdgcn"]))
    return 4 * spilled, int(_only(r"\.vgpr_count:\s*(\d+)", asm["amdgcn"]))


def _only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text)
    return found


if __name__ == "__main__":
    for fields in json.load(sys.stdin):
        try:
            answer = compile_spec(Spec(**fields), sys.argv[1])._asdict()
        except Exception as error:  # whatever the compiler says belongs into the report of a test
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
