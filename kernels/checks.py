"""What the cells accept: each check names the argument, what it got and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling

_FLOAT_NAMES = "float16, bfloat16, float32 or float64"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState | None,
    mask: Tensor | None,
    sequence: bool,
) -> None:
    """Check the tensors of an mLSTM, over a sequence or for one step."""
    _check_layout("q", q, "(B, T, H, K)" if sequence else "(B, H, K)")
    _check_layout("v", v, "(B, T, H, V)" if sequence else "(B, H, V)")
    *steps, H, K = q.shape
    V = v.shape[-1]
    _check_floats("k", k, (*steps, H, K), like=q)
    _check_floats("v", v, (*steps, H, V), like=q)
    _check_floats("i", i, (*steps, H), like=q)
    _check_floats("f", f, (*steps, H), like=q)
    B = steps[0]
    _check_state(state, "cnm", ((B, H, K, V), (B, H, K), (B, H)), like=q)
    _check_mask(mask, steps, like=q)


def check_slstm(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    *,
    state: SLSTMState | None,
    mask: Tensor | None,
    sequence: bool,
) -> None:
    """Check the tensors of an sLSTM, over a sequence or for one step."""
    _check_layout("x", x, "(B, T, 4, H, D)" if sequence else "(B, 4, H, D)")
    *steps, _, H, D = x.shape
    _check_floats("x", x, (*steps, 4, H, D), like=x)
    _check_floats("r", r, (H, 4, D, D), like=x)
    _check_floats("b", b, (4, H, D), like=x)
    _check_state(state, "hcnm", ((steps[0], H, D),) * 4, like=x)
    _check_mask(mask, steps, like=x)


def check_choice(form: str, chunk_size: int | None, segments: int | None) -> None:
    """Check how the mLSTM cuts a sequence."""
    if form not in ("auto", "parallel", "chunkwise"):
        raise ValueError(f"`form` must be 'auto', 'parallel' or 'chunkwise', got {form!r}.")
    for name, count in (("chunk_size", chunk_size), ("segments", segments)):
        if count is not None and not _is_count(count):
            raise ValueError(f"`{name}` must be an integer of at least 1, got {count!r}.")
    if form == "parallel" and chunk_size is not None:
        raise ValueError(
            f"`chunk_size` must be None with form='parallel', which is one chunk, got "
            f"{chunk_size}; use form='chunkwise'."
        )


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


def _check_sizes(tiling: tuple[int, ...]) -> None:
    *blocks, warps, stages = tiling
    if not all(_is_power(size, least=16) for size in blocks):
        raise ValueError(f"Blocks of `tiling` must be powers of two, at least 16, got {tiling}.")
    if not _is_power(warps, least=1) or not _is_count(stages):
        raise ValueError(
            f"`tiling` must have a power of two of warps and at least 1 stage, got {tiling}."
        )


def _is_power(size: int, *, least: int) -> bool:
    return _is_count(size) and size >= least and size & (size - 1) == 0


def _is_count(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1


def _check_layout(name: str, x: Tensor, layout: str) -> None:
    _check_kind(name, x)
    if x.ndim != layout.count(",") + 1:
        raise ValueError(f"`{name}` must be laid out {layout}, got shape {tuple(x.shape)}.")
    if x.dtype not in _FLOATS:
        raise ValueError(f"`{name}` must be {_FLOAT_NAMES}, got {x.dtype}.")
    if 0 in x.shape:
        raise ValueError(
            f"`{name}` must not be empty, got shape {tuple(x.shape)}: no size of {layout} may be 0."
        )


def _check_floats(name: str, x: Tensor, shape: Sequence[int], *, like: Tensor) -> None:
    _check_tensor(name, x, shape, like=like)
    if x.dtype not in _FLOATS:
        raise ValueError(f"`{name}` must be {_FLOAT_NAMES}, got {x.dtype}.")


def _check_mask(mask: Tensor | None, shape: Sequence[int], *, like: Tensor) -> None:
    if mask is None:
        return
    _check_tensor("mask", mask, shape, like=like)
    if mask.dtype != torch.bool:
        raise ValueError(f"`mask` must be bool, true where a step is present, got {mask.dtype}.")


def _check_state(
    state: tuple[Tensor, ...] | None,
    fields: str,
    shapes: Sequence[Sequence[int]],
    *,
    like: Tensor,
) -> None:
    if state is None:
        return
    if not isinstance(state, tuple) or len(state) != len(fields):
        size = f" of {len(state)}" if isinstance(state, (tuple, list)) else ""
        raise ValueError(
            f"`state` must be a tuple ({', '.join(fields)}), got {type(state).__name__}{size}."
        )
    for name, part, shape in zip(fields, state, shapes, strict=True):
        _check_floats(f"state.{name}", part, shape, like=like)


def _check_tensor(name: str, x: Tensor, shape: Sequence[int], *, like: Tensor) -> None:
    _check_kind(name, x)
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"`{name}` must have shape {tuple(shape)}, got {tuple(x.shape)}.")
    if x.device != like.device:
        raise ValueError(f"`{name}` must be on {like.device} like the others, got {x.device}.")


def _check_kind(name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"`{name}` must be a tensor, got {type(x).__name__}.")
