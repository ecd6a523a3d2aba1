"""The sLSTM on a GPU: how the kernels of `slstm_jit` are launched, one launch per direction.

The gradients of the weights are one product and one sum after the scan, left to torch: summing them
within it would take four more matrices on chip.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from xlstm_ts.kernels.launch import (
    compiler_options,
    mask_arguments,
    product_options,
    state_arguments,
    strides,
    unit_columns,
)
from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.slstm_jit import backward_kernel, forward_kernel
from xlstm_ts.kernels.states import SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling, padded


class Saved(NamedTuple):
    """What the backward pass needs besides `h`, float32.

    One of the two stabilised gates is always 1, so `gap` = i - (log f + m) gives both: the other is
    exp(-|gap|). Saved rather than computed again, as that would take R beside its transpose on
    chip, and with it the room for twice the head size. Absent steps have gap = -inf, sigmoid(-f) =
    0: nothing written, nothing forgotten.
    """

    gates: Tensor  # (T, 4, H, B, D): gap, sigmoid(-f), tanh z, sigmoid o
    memories: Tensor  # (T + 1, 2, H, B, D): c and n before each step and after the last


# Steps of one product of the gradient of the recurrent weights.
_PART = 512


def forward(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    *,
    state: SLSTMState | None,
    mask: Tensor | None,
    tiling: ScanTiling,
    precision: Precision,
    save: bool = True,
) -> tuple[Tensor, SLSTMState, Saved | None]:
    """Run over a sequence.

    Parameters
    ----------
    x
        What the input gives to the gates i, f, z, o, `(B, T, 4, H, D)`, any floating dtype.
    r
        Recurrent weights, `(H, 4, D_out, D_in)`.
    b
        Bias, `(4, H, D)`.
    state
        Memory before the first step, empty if `None`.
    mask
        `(B, T)`, true where a step is present. Absent steps are never used, whatever stands there.
    tiling, precision
        How the work is cut, and what the matrix products are computed in.
    save
        Whether a backward pass will follow.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, D)`, in the dtype of `x`.
    state : SLSTMState
        Memory after the last step, float32.
    saved : Saved or None
        What `backward` needs, if it will follow.
    """
    x = unit_columns(x)
    B, T, _, H, D = x.shape
    h, final = x.new_empty(B, T, H, D), _memories(x, B, H, D)
    saved = None
    if save:
        gates = torch.empty(T, 4, H, B, D, dtype=torch.float32, device=x.device)
        saved = Saved(gates, gates.new_empty(T + 1, 2, H, B, D))
    with torch.cuda.device_of(x):
        forward_kernel[_grid(B, H, tiling)](
            x_ptr=x,
            r_ptr=r.contiguous(),
            b_ptr=b.contiguous(),
            **state_arguments("h0_ptr c0_ptr n0_ptr m0_ptr", state),
            h_ptr=h,
            **state_arguments("hT_ptr cT_ptr nT_ptr mT_ptr", final),
            gates_ptr=saved and saved.gates,
            memories_ptr=saved and saved.memories,
            B=B,
            T=T,
            **strides("btgh", x=x),
            **mask_arguments(mask),
            **_launch(D, tiling, precision),
        )
    return h, final, saved


def backward(
    dh: Tensor,
    dfinal: SLSTMState | None,
    *,
    r: Tensor,
    h: Tensor,
    saved: Saved,
    state: SLSTMState | None,
    mask: Tensor | None,
    tiling: ScanTiling,
    precision: Precision,
) -> tuple[Tensor, Tensor, Tensor, SLSTMState]:
    """Carry gradients back through `forward`; the stabiliser m is held fixed.

    Parameters
    ----------
    dh
        Gradient of the outputs, `(B, T, H, D)`.
    dfinal
        Gradients of the last memory, each `(B, H, D)`, none if `None`; that of m is not read.
    r, state, mask
        As given to `forward`.
    h, saved
        As returned by `forward`.
    tiling, precision
        As for `forward`.

    Returns
    -------
    dx : Tensor
        `(B, T, 4, H, D)`, in the dtype of `h`.
    dr, db : Tensor
        `(H, 4, D_out, D_in)` and `(4, H, D)`, float32.
    dstate : SLSTMState
        Gradients of the memory before the first step, each `(B, H, D)`, float32.
    """
    dh = unit_columns(dh)
    B, T, H, D = h.shape
    dx, dstate = h.new_empty(B, T, 4, H, D), _memories(h, B, H, D)
    with torch.cuda.device_of(h):
        backward_kernel[_grid(B, H, tiling)](
            dh_ptr=dh,
            r_ptr=r.contiguous(),
            **state_arguments("dhT_ptr dcT_ptr dnT_ptr", dfinal),
            gates_ptr=saved.gates,
            memories_ptr=saved.memories,
            dx_ptr=dx,
            **state_arguments("dh0_ptr dc0_ptr dn0_ptr dm0_ptr", dstate),
            B=B,
            T=T,
            **strides("bth", dh=dh),
            **mask_arguments(mask),
            **_launch(D, tiling, precision),
        )
    h0 = torch.zeros_like(h[:, 0]) if state is None else state.h.to(h.dtype)
    before = torch.cat((h0[:, None], h[:, :-1]), 1)
    return dx, _products(dx, before), dx.sum((0, 1), dtype=torch.float32), dstate


def _products(dx: Tensor, before: Tensor) -> Tensor:
    """Return the sum of the outer products of all steps, `(H, 4, D_out, D_in)`.

    In parts, each a matrix product of its own: one sum over all steps would be as many products
    as there are heads, and most of a GPU would wait for them.
    """
    parts = [
        F.pad(x.flatten(0, 1).float(), (0, 0) * (x.dim() - 2) + (0, -len(x) * x.shape[1] % _PART))
        for x in (dx, before)
    ]
    dx, before = (x.unflatten(0, (-1, _PART)) for x in parts)
    return torch.einsum("nsgho,nshi->nhgoi", dx, before).sum(0)


def _grid(batch: int, heads: int, tiling: ScanTiling) -> tuple[int, int]:
    """Return programs by series and heads: CUDA bounds all axes but the first, at 65,535."""
    return triton.cdiv(batch, tiling.rows), heads


def _launch(dim: int, tiling: ScanTiling, precision: Precision) -> dict[str, Any]:
    return {
        "D": dim,
        "BLOCK": padded(dim),
        "ROWS": tiling.rows,
        **product_options(precision),
        **compiler_options(warps=tiling.warps, stages=tiling.stages),
    }


def _memories(like: Tensor, *shape: int) -> SLSTMState:
    return SLSTMState(*(like.new_empty(shape, dtype=torch.float32) for _ in range(4)))
