"""Every kernel with every tiling compiles for each GPU, within its memory and its registers.

No GPU is needed. The kernels are compiled in other processes, one for each test, since in this one
they run in the interpreter. A repeated run takes them from Triton's cache.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from xlstm_ts.kernels.tiling import mlstm_tiling, padded

# Shared memory that one program may use, KiB.
SHARED = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "gfx942": 64}
HEADS, PRECISIONS = (16, 32, 64, 128), ("fp32", "tf32", "bf16")
JIT = "xlstm_ts.kernels.mlstm_jit"

SMALL = {"q", "k", "v", "i", "f", "h", "dh", "dv"}  # pointers to the caller's dtype
FORWARD = SMALL - {"dh", "dv"} | {"d", "mc", "c0", "n0", "m0", "c", "n", "m"}
BACKWARD = SMALL | {"d", "mc", "c0", "n0", "m0", "c1", "n1", "m1", "dc1", "dn1", "dc0", "dn0"}
BACKWARD |= {"dm0", "dq", "dk", "di", "df"}
UNUSED = {
    "forward": {"g"},
    "backward": {"g"},
    "forward borders": {"h", "d", "mc", "c0", "n0", "m0"},
    "backward borders": {"dq", "dk", "dv", "di", "df", "c1", "n1", "dc1", "dn1", "dm0"},
}
OPTIONAL = {"mask", "c0", "n0", "m0", "c1", "n1", "m1", "dc1", "dn1", "dc0", "dn0", "dm0"}


def mlstm_spec(
    role: str, K: int, V: int, precision: str, *, optional: bool = True
) -> dict[str, Any]:
    """Return one launch of the mLSTM; without what is optional it has no state and no mask."""
    backward = role.startswith("backward")
    tiling = mlstm_tiling(K, V, precision, backward=backward)
    dtype = "bf16" if precision == "bf16" else "fp32"
    pointers = dict.fromkeys({*(BACKWARD if backward else FORWARD), "g"}, "fp32")
    pointers |= {name: dtype for name in pointers if name in SMALL} | {"mask": "u8"}
    if tiling.value_block >= V:
        pointers |= {name: dtype for name in ("dq", "dk", "di", "df") if name in pointers}
    left_out = UNUSED[role] | (set() if optional else OPTIONAL)
    return {
        "kernel": f"{JIT}:{'backward' if backward else 'forward'}_kernel",
        "constexprs": {
            **dict.fromkeys(left_out),
            "K": K,
            "V": V,
            "L": tiling.chunk,
            "BK": padded(K),
            "BV": tiling.value_block,
            "UNIT": 16 if K % 16 == V % 16 == 0 else 8,
            "PRECISION": "tf32" if precision == "tf32" else "ieee",
            "DOT": "tl.bfloat16" if precision == "bf16" else "tl.float32",
        },
        "pointers": {name: kind for name, kind in pointers.items() if name not in left_out},
        "warps": tiling.warps,
        "stages": tiling.stages,
    }


def join_spec(*, reverse: bool) -> dict[str, Any]:
    return {
        "kernel": f"{JIT}:join_kernel",
        "constexprs": {"REVERSE": reverse, "BLOCK": 1024},
        "pointers": dict.fromkeys(("x", "m", "g", "m_out"), "fp32"),
        "warps": 4,
        "stages": 1,
    }


def resources(target: str, specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("aot.py"), target],
        input=json.dumps(list(specs)),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(target: str, specs: Mapping[Any, Mapping[str, Any]], spill: Mapping[Any, int]) -> None:
    """Hold each spec to the memory of its target, and to as many spilled bytes of a thread."""
    found = dict(zip(specs, resources(target, list(specs.values())), strict=True))
    for name, used in found.items():
        assert "error" not in used, (target, name, used)
    over = {
        name: used
        for name, used in found.items()
        if used["shared"] > SHARED[target] * 1024 or used["spill_bytes"] > spill[name]
    }
    assert over == {}, target


def budget(size: int, precision: str) -> int:
    """Return the bytes that a thread may spill; kilobytes would cost more than the loads."""
    if size == 128:
        return {"fp32": 448, "tf32": 128, "bf16": 320}[precision]
    return {16: 192, 32: 128, 64: 256}[size]


def check_mlstm(target: str, cases: Sequence[tuple[str, int, str]]) -> None:
    specs = {case: mlstm_spec(case[0], case[1], case[1], case[2]) for case in cases}
    check(target, specs, {case: budget(*case[1:]) for case in cases})


def grid(role: str) -> list[tuple[str, int, str]]:
    return [(role, size, precision) for size in HEADS for precision in PRECISIONS]


@pytest.mark.parametrize("role", ["forward", "backward"])
def test_mlstm_for_sm_90(role: str) -> None:
    check_mlstm("sm_90", grid(role))


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_mlstm_of_wide_heads(target: str) -> None:
    sizes = ((64, "bf16"), (128, "tf32"))
    check_mlstm(target, [(role, *size) for role in ("forward", "backward") for size in sizes])


@pytest.mark.slow
@pytest.mark.parametrize("role", ["forward", "backward"])
@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_mlstm(target: str, role: str) -> None:
    check_mlstm(target, grid(role))


@pytest.mark.parametrize("target", ["sm_90", pytest.param("gfx942", marks=pytest.mark.slow)])
def test_mlstm_without_state_and_with_odd_heads(target: str) -> None:
    cases = [(32, 32, "bf16"), (24, 8, "tf32"), (16, 128, "bf16"), (100, 16, "tf32")]
    specs = {
        (role, *case): mlstm_spec(role, *case, optional=False)
        for role in ("forward", "backward")
        for case in cases
    }
    check(target, specs, dict.fromkeys(specs, 320))


@pytest.mark.parametrize(
    "target",
    ["sm_90", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "sm_100"))],
)
def test_borders_of_segments(target: str) -> None:
    sizes = ((16, "bf16"), (64, "tf32"), (128, "bf16"))
    roles = ("forward borders", "backward borders")
    check_mlstm(target, [(role, *size) for role in roles for size in sizes])
    joins = {reverse: join_spec(reverse=reverse) for reverse in (False, True)}
    check(target, joins, dict.fromkeys(joins, 0))
