"""What the launchers of both cells share: how tensors and options become arguments of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_ts.kernels.precision import Precision

# Triton's interpreter computes bfloat16 on its raw bits.
INTERPRETED: bool = triton.knobs.runtime.interpret
AMD = torch.version.hip is not None


def compiler_options(*, warps: int, stages: int) -> dict[str, int | bool]:
    """Say how a kernel shall be compiled; AMD's warps are twice as wide, and take one stage."""
    return {
        "num_warps": max(1, warps // 2) if AMD else warps,
        "num_stages": 1 if AMD else stages,
        "enable_fp_fusion": True,
    }


def product_options(precision: Precision) -> dict[str, Any]:
    """Say in what the matrix products of a kernel are computed."""
    half = precision == "bf16" and not INTERPRETED
    return {
        "PRECISION": "tf32" if precision == "tf32" else "ieee",
        "DOT": tl.bfloat16 if half else tl.float32,
    }


def strides(letters: str, **tensors: Tensor) -> dict[str, int]:
    """Name the strides, the last aside, in units that tell the compiler what divides them all."""
    steps = {name: x.stride()[:-1] for name, x in tensors.items()}
    unit = gcd(16, *(step for several in steps.values() for step in several))
    named = {
        f"{name}_{letter}": step // unit
        for name, several in steps.items()
        for letter, step in zip(letters, several, strict=True)
    }
    return {**named, "UNIT": unit}


def mask_arguments(mask: Tensor | None) -> dict[str, Tensor | int | None]:
    """Name a mask and its strides."""
    if mask is None:
        return {"mask": None, "mask_b": 0, "mask_t": 0}
    return {"mask": mask.view(torch.uint8), "mask_b": mask.stride(0), "mask_t": mask.stride(1)}


def state_arguments(names: str, state: Sequence[Tensor] | None) -> dict[str, Tensor | None]:
    """Name the parts of a state, float32 and contiguous, or the absence of each."""
    if state is None:
        return dict.fromkeys(names.split())
    parts = (x.float().contiguous() for x in state)
    return dict(zip(names.split(), parts, strict=False))


def unit_columns(x: Tensor) -> Tensor:
    """Return `x` with its last axis contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()
