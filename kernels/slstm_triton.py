"""The sLSTM on a GPU: how the kernels of `slstm_jit` are launched, one launch per direction.

The gradients of the weights are one product and one sum after the scan, left to torch: summing them
within it would take four more matrices on chip.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.slstm_jit import backward_kernel, forward_kernel
from xlstm_ts.kernels.states import SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling, padded

# False in Triton's interpreter, where arithmetic on bf16 is silent garbage.
_COMPILED = isinstance(forward_kernel, triton.JITFunction)


class Saved(NamedTuple):
    """What the backward pass needs besides `h`, float32.

    One of the two stabilised gates is always 1, so `gap` = i - (log f + m) gives both: the other is
    exp(-|gap|). Saved rather than computed again, as that would take R beside its transpose on
    chip, and with it the room for twice the head size. Absent steps have gap = -inf, sigmoid(-f) =
    0: nothing written, nothing forgotten.
    """

    gates: Tensor  # (T, 4, H, B, D): gap, sigmoid(-f), tanh z, sigmoid o
    memories: Tensor  # (T + 1, 2, H, B, D): c and n before each step and after the last


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
    x = _unit_stride(x)
    B, T, _, H, D = x.shape
    h, final = x.new_empty(B, T, H, D), _memories(x, B, H, D)
    saved = None
    if save:
        gates = torch.empty(T, 4, H, B, D, dtype=torch.float32, device=x.device)
        saved = Saved(gates, gates.new_empty(T + 1, 2, H, B, D))
    with torch.cuda.device_of(x):
        forward_kernel[(H, triton.cdiv(B, tiling.rows))](
            x_ptr=x,
            r_ptr=r.contiguous(),
            b_ptr=b.contiguous(),
            **_named("{}0_ptr", state),
            h_ptr=h,
            **_named("{}T_ptr", final),
            gates_ptr=saved and saved.gates,
            memories_ptr=saved and saved.memories,
            B=B,
            T=T,
            **_strides(x, "btgh", name="x"),
            **_mask(mask),
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
    dh = _unit_stride(dh)
    B, T, H, D = h.shape
    dx, dstate = h.new_empty(B, T, 4, H, D), _memories(h, B, H, D)
    with torch.cuda.device_of(h):
        backward_kernel[(H, triton.cdiv(B, tiling.rows))](
            dh_ptr=dh,
            r_ptr=r.contiguous(),
            **_named("d{}T_ptr", dfinal, letters="hcn"),
            gates_ptr=saved.gates,
            memories_ptr=saved.memories,
            dx_ptr=dx,
            **_named("d{}0_ptr", dstate),
            B=B,
            T=T,
            **_strides(dh, "bth", name="dh"),
            **_mask(mask),
            **_launch(D, tiling, precision),
        )
    h0 = torch.zeros_like(h[:, 0]) if state is None else state.h.to(h.dtype)
    before = torch.cat((h0[:, None], h[:, :-1]), 1).float()
    dr = torch.einsum("btgho,bthi->hgoi", dx.float(), before)
    return dx, dr, dx.sum((0, 1), dtype=torch.float32), dstate


def _launch(dim: int, tiling: ScanTiling, precision: Precision) -> dict[str, Any]:
    half = precision == "bf16" and _COMPILED
    return {
        "D": dim,
        "BLOCK": padded(dim),
        "ROWS": tiling.rows,
        "DOT": tl.bfloat16 if half else tl.float32,
        "PRECISION": "tf32" if precision == "tf32" else "ieee",
        "num_warps": tiling.warps,
        "num_stages": tiling.stages,
        "enable_fp_fusion": True,
    }


def _strides(x: Tensor, letters: str, *, name: str) -> dict[str, int]:
    """Name the strides, in units that tell the compiler by how much they can be divided."""
    unit = gcd(16, *x.stride()[:-1])
    strides = zip(letters, x.stride(), strict=False)
    return {f"{name}_{letter}": stride // unit for letter, stride in strides} | {"UNIT": unit}


def _mask(mask: Tensor | None) -> dict[str, Tensor | int | None]:
    if mask is None:
        return {"mask_ptr": None, "mask_b": 0, "mask_t": 0}
    return {"mask_ptr": mask.view(torch.uint8), "mask_b": mask.stride(0), "mask_t": mask.stride(1)}


def _named(
    pattern: str, state: SLSTMState | None, *, letters: str = "hcnm"
) -> dict[str, Tensor | None]:
    parts = (None,) * 4 if state is None else (x.float().contiguous() for x in state)
    return {pattern.format(letter): x for letter, x in zip(letters, parts, strict=False)}


def _memories(like: Tensor, *shape: int) -> SLSTMState:
    return SLSTMState(*(like.new_empty(shape, dtype=torch.float32) for _ in range(4)))


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
