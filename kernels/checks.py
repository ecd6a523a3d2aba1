"""What the cells accept: each check names the argument, what it got and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xlstm_ts.kernels.tiling import ScanTiling


def check_mlstm(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, sequence: bool) -> None:
    """Check the five inputs of an mLSTM, over a sequence or for one step."""
    _check_layout("q", q, "(B, T, H, K)" if sequence else "(B, H, K)")
    _check_layout("v", v, "(B, T, H, V)" if sequence else "(B, H, V)")
    check_shape("k", k, q.shape)
    check_shape("v", v, (*q.shape[:-1], v.shape[-1]))
    check_shape("i", i, q.shape[:-1])
    check_shape("f", f, q.shape[:-1])


def check_slstm(x: Tensor, r: Tensor, b: Tensor, *, sequence: bool) -> None:
    """Check the input and the weights of an sLSTM, over a sequence or for one step."""
    _check_layout("x", x, "(B, T, 4, H, D)" if sequence else "(B, 4, H, D)")
    H, D = x.shape[-2:]
    check_shape("x", x, (*x.shape[:-3], 4, H, D))
    check_shape("r", r, (H, 4, D, D))
    check_shape("b", b, (4, H, D))


def check_mask(mask: Tensor | None, shape: Sequence[int]) -> None:
    """Check that a mask is boolean, one value per step."""
    if mask is None:
        return
    check_shape("mask", mask, shape)
    if mask.dtype != torch.bool:
        raise ValueError(f"`mask` must be bool, true where a step is present, got {mask.dtype}.")


def check_choice(form: str, chunk_size: int | None, segments: int | None) -> None:
    """Check how the mLSTM cuts a sequence."""
    if form not in ("auto", "parallel", "chunkwise"):
        raise ValueError(f"`form` must be 'auto', 'parallel' or 'chunkwise', got {form!r}.")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}.")
    if segments is not None and segments < 1:
        raise ValueError(f"`segments` must be at least 1, got {segments}.")


def check_kernels(
    precision: str, tiling: tuple[Any, ...] | None, *, kinds: tuple[type, ...]
) -> None:
    """Check the options of the kernels: the precision, and a tiling of each kind, if any."""
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"`precision` must be 'fp32', 'tf32' or 'bf16', got {precision!r}.")
    if tiling is None:
        return
    parts: tuple[Any, ...] = (tiling,) if isinstance(tiling, ScanTiling) else tiling
    if not isinstance(parts, tuple) or tuple(type(part) for part in parts) != kinds:
        names = " and ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"`tiling` must be {names}, got {tiling}.")
    for part in parts:
        _check_sizes(part)


def check_shape(name: str, x: Tensor, shape: Sequence[int]) -> None:
    """Check one tensor against the shape that the others demand."""
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"`{name}` must have shape {tuple(shape)}, got {tuple(x.shape)}.")


def _check_sizes(tiling: tuple[int, ...]) -> None:
    *blocks, warps, stages = tiling
    if not all(_is_power(size, least=16) for size in blocks):
        raise ValueError(f"Blocks of `tiling` must be powers of two, at least 16, got {tiling}.")
    if not _is_power(warps, least=1) or stages < 1:
        raise ValueError(
            f"`tiling` must have a power of two of warps and at least 1 stage, got {tiling}."
        )


def _is_power(size: int, *, least: int) -> bool:
    return size >= least and size & (size - 1) == 0


def _check_layout(name: str, x: Tensor, layout: str) -> None:
    if x.ndim != layout.count(",") + 1:
        raise ValueError(f"`{name}` must be laid out {layout}, got shape {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ValueError(f"`{name}` must be a floating-point tensor, got {x.dtype}.")
    if 0 in x.shape:
        raise ValueError(
            f"`{name}` must not be empty, got shape {tuple(x.shape)}: no size of {layout} may be 0."
        )
