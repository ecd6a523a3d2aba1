"""The sLSTM kernels compile for devices that are not there, within what those devices offer.

The interpreter of the other tests replaces the very functions that are compiled here, so that the
tests run this file as a program of its own, which prints what it finds as JSON.
"""

import json
import os
import subprocess
import sys
from itertools import product
from math import gcd
from pathlib import Path
from typing import get_args

import pytest
import torch

from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.tiling import fits, padded, scan_shared_bytes, slstm_tiling

ROOT = Path(__file__).parents[2]
LANES = {"sm_80": 32, "sm_90": 32, "sm_100": 32, "gfx942": 64}
# Heads that no program of the target holds.
TOO_LARGE = {(128, "fp32"), (128, "tf32")}
# What is spilled is set aside before the loop, and read back after it.
SPILL_BUDGET = 128


def print_resources(target: str, *widths: str) -> None:
    """Print `[width, precision, kernel, shared, spilled, registers]` of all that fits."""
    from tests.kernels import aot
    from xlstm_ts.kernels import slstm_jit

    used = []
    for width, precision in product(map(int, widths), get_args(Precision)):
        if not fits(width, precision, aot.SHARED[target], lanes=LANES[target]):
            continue
        for kernel in (slstm_jit.forward_kernel, slstm_jit.backward_kernel):
            resources = aot.compile_spec(spec(kernel, width, precision, target), target)
            used.append([width, precision, kernel.fn.__name__, *resources])
        if width == 64 and precision == "bf16":
            for kernel in (slstm_jit.forward_kernel, slstm_jit.backward_kernel):
                form = leanest(spec(kernel, width, precision, target))
                resources = aot.compile_spec(form, target)
                used.append([width, precision, f"lean {kernel.fn.__name__}", *resources])
    sys.stdout.write(json.dumps(used))


def spec(kernel, width: int, precision: Precision, target: str):
    """Return the fullest form of a kernel: with a state, a mask, and all that is saved."""
    import triton.language as tl

    from tests.kernels import aot

    tiling = slstm_tiling(width, precision, lanes=LANES[target])
    half = precision == "bf16"
    constants = {
        "D": width,
        "BLOCK": padded(width),
        "ROWS": tiling.rows,
        "UNIT": gcd(16, width),
        "PRECISION": "tf32" if precision == "tf32" else "ieee",
        "DOT": tl.bfloat16 if half else tl.float32,
    }
    pointers = {name: "fp32" for name in kernel.arg_names if name.endswith("_ptr")}
    for name in pointers.keys() & {"x_ptr", "h_ptr", "dh_ptr", "dx_ptr"}:
        pointers[name] = "bf16" if half else "fp32"
    pointers["mask_ptr"] = "u8"
    return aot.Spec(kernel, constants, pointers, tiling.warps, tiling.stages)


def leanest(spec):
    """Return the same without a state, a mask, anything saved or a gradient of the end."""
    kept = {"x_ptr", "r_ptr", "b_ptr", "dx_ptr"}
    if "dx_ptr" in spec.kernel.arg_names:
        kept |= {"gates_ptr", "memories_ptr", "dh_ptr"} | {f"d{part}0_ptr" for part in "hcnm"}
    else:
        kept |= {"h_ptr"} | {f"{part}T_ptr" for part in "hcnm"}
    constants = {**spec.constexprs, **dict.fromkeys(spec.pointers.keys() - kept)}
    pointers = {name: kind for name, kind in spec.pointers.items() if name in kept}
    return spec._replace(constexprs=constants, pointers=pointers)


class Recorder:
    """Takes the place of a kernel and notes which binaries its launches would ask for."""

    def __init__(self, kernel) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        backend = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        self.name, self.binaries = kernel.fn.__name__, set()

    def __getitem__(self, grid):
        return self.launch

    def launch(self, **arguments) -> None:
        _, specialization, options = self.bind(**arguments)
        self.binaries.add(f"{specialization} {sorted(options.items())}")


def print_binaries() -> None:
    """Print for each kernel how many binaries all lengths and batches need together."""
    from xlstm_ts.kernels import slstm_triton

    forward = slstm_triton.forward_kernel = Recorder(slstm_triton.forward_kernel)
    backward = slstm_triton.backward_kernel = Recorder(slstm_triton.backward_kernel)
    options = {"state": None, "tiling": slstm_tiling(24, "bf16"), "precision": "bf16"}
    r, b = torch.randn(2, 4, 24, 24), torch.randn(4, 2, 24)
    for B, T in product((1, 2, 15, 16, 17, 64), repeat=2):
        mask = torch.ones(B, T, dtype=torch.bool)
        h, _, saved = slstm_triton.forward(torch.randn(B, T, 4, 2, 24), r, b, mask=mask, **options)
        slstm_triton.backward(h, None, r=r, h=h, saved=saved, mask=mask, **options)
    sys.stdout.write(
        json.dumps([[kernel.name, len(kernel.binaries)] for kernel in (forward, backward)])
    )


def run(*arguments: str) -> list[list]:
    """Run this file where kernels are real ones."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.test_slstm_compile", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("widths", [(64, 128), pytest.param((16, 32), marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", LANES)
def test_kernels_compile_within_their_budgets(target: str, widths: tuple[int, ...]) -> None:
    aot = pytest.importorskip("tests.kernels.aot")
    limit, lanes = aot.SHARED[target], LANES[target]
    used = run("compile", target, *map(str, widths))
    expected = set(product(widths, get_args(Precision))) - (TOO_LARGE if lanes == 32 else set())
    assert {(width, precision) for width, precision, *_ in used} == expected
    for width, precision, name, shared, spilled, _ in used:
        where = f"{name}, D={width}, {precision}"
        assert shared <= scan_shared_bytes(width, precision, lanes=lanes) <= limit, where
        assert spilled <= SPILL_BUDGET, where


def test_new_lengths_and_batches_compile_nothing() -> None:
    pytest.importorskip("triton")
    assert run("specialise") == [["forward_kernel", 1], ["backward_kernel", 1]]


if __name__ == "__main__":
    {"compile": print_resources, "specialise": print_binaries}[sys.argv[1]](*sys.argv[2:])
