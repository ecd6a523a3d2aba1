"""Record the launches of kernels, and compile them for devices that need not be there.

As a script: `python aot.py TARGET < launches.json`, a line of JSON for each: what it uses, or with
`names` for TARGET the name of its binary. It wants a process of its own, without TRITON_INTERPRET,
since kernels must be real ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
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
PROCESSES = 2


class Launch(NamedTuple):
    """A kernel, `"module:name"`, and its arguments, as JSON knows them.

    A tensor is `{"type": "bf16", "aligned": True}`, a type is `"tl.bf16"`.
    """

    kernel: str
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


class Recorder:
    """Takes the place of a kernel, and notes its launches instead of running them."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel = f"{kernel.fn.__module__}:{kernel.fn.__name__}"
        self.names = set(kernel.arg_names)
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._record

    def _record(self, **arguments: Any) -> None:
        known = {name: _to_json(x) for name, x in arguments.items() if name in self.names}
        options = {name: x for name, x in arguments.items() if name not in self.names}
        self.launches.append(Launch(self.kernel, known, options))


class Resources(NamedTuple):
    """Shared memory of a program, and spilled bytes and registers of a thread."""

    shared: int
    spill_bytes: int
    registers: int


def ask(target: str, launches: Sequence[Launch]) -> list[Any]:
    """Run this file over `launches` in several processes, and return what it says of each."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}

    def run(share: Sequence[Launch]) -> list[Any]:
        done = subprocess.run(
            [sys.executable, __file__, target],
            input=json.dumps(share),
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    answers: list[Any] = [None] * len(launches)
    with ThreadPoolExecutor(PROCESSES) as pool:
        shares = [launches[first::PROCESSES] for first in range(PROCESSES)]
        for first, found in enumerate(pool.map(run, shares)):
            answers[first::PROCESSES] = found
    return answers


def compile_launch(launch: Launch, target: str) -> Resources:
    """Compile for one of `TARGETS`."""
    source = _source(launch)
    compiled = triton.compile(source, target=TARGETS[target], options=dict(launch.options))
    read = _read_amd if TARGETS[target].backend == "hip" else _read_nvidia
    return Resources(compiled.metadata.shared, *read(compiled.asm))


def binary_name(launch: Launch) -> str:
    """Return what is the same for all launches that share a binary."""
    source = _source(launch)
    kinds = [launch.kernel, source.signature, source.constants, source.attrs, launch.options]
    return " ".join(map(str, kinds))


def _source(launch: Launch) -> ASTSource:
    module, _, name = launch.kernel.partition(":")
    kernel = getattr(import_module(module), name)
    signature, constants, attributes = {}, {}, {}
    for place, param in enumerate(kernel.params):
        x = launch.arguments[param.name]
        if param.is_constexpr or x is None:
            signature[param.name] = "constexpr"
            constants[(place,)] = _from_json(x)
        elif isinstance(x, dict):
            signature[param.name] = f"*{x['type']}"
            if x["aligned"] and not param.do_not_specialize_on_alignment:
                attributes[(place,)] = [["tt.divisibility", 16]]
        elif param.do_not_specialize:
            signature[param.name] = "i32"
        else:
            raise ValueError(f"`{param.name}` would compile {name} anew for every kind of value.")
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def _to_json(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        kinds = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.uint8: "u8"}
        return {"type": kinds[x.dtype], "aligned": x.data_ptr() % 16 == 0}
    return f"tl.{x.name}" if isinstance(x, tl.dtype) else x


def _from_json(x: Any) -> Any:
    return tl.dtype(x[3:]) if isinstance(x, str) and x[:3] == "tl." else x


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


def _answer(launch: Launch, target: str) -> Any:
    if target == "names":
        return binary_name(launch)
    try:
        return compile_launch(launch, target)._asdict()
    except Exception as error:  # whatever the compiler says belongs into the report of a test
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    for fields in json.load(sys.stdin):
        sys.stdout.write(json.dumps(_answer(Launch(*fields), sys.argv[1])) + "\n")
