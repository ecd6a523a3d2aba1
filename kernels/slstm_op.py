"""The sLSTM as an opaque operator of torch, `xlstm_ts::slstm`, with its gradient.

As `mlstm_op` has it: one operator for both paths, so that `torch.compile` takes any length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from xlstm_ts.kernels import slstm_torch
from xlstm_ts.kernels.autograd import differentiable
from xlstm_ts.kernels.precision import Precision, full_precision
from xlstm_ts.kernels.states import SLSTMState, slstm_initial_state
from xlstm_ts.kernels.tiling import ScanTiling, slstm_tiling


class Plan(NamedTuple):
    """How a call is computed.

    Attributes
    ----------
    triton
        By the kernels, else by torch.
    precision
        Of the products of the kernels.
    tiling
        Of the kernels; by default that of the table.
    save
        Whether the kernels keep what their backward pass needs, which is more than the scan itself
        writes; `run` sets it, empty tensors stand for what is not kept.
    """

    triton: bool
    precision: Precision = "fp32"
    tiling: tuple[int, ...] | None = None
    save: bool = True


def run(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    *,
    state: SLSTMState | None,
    mask: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, SLSTMState]:
    """Return outputs `(B, T, H, D)` and the last memory, whose m carries no gradient."""
    parts = (None,) * 4 if state is None else state
    wanted = any(part is not None and part.requires_grad for part in (x, r, b, *parts))
    plan = plan._replace(save=torch.is_grad_enabled() and wanted)
    outputs, h, c, n, m, *_ = _call(x, r, b, *parts, mask, *plan)
    return outputs, SLSTMState(h, c, n, m.detach())


@torch.library.custom_op("xlstm_ts::slstm", mutates_args=())
def _slstm(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    n0: Tensor | None,
    m0: Tensor | None,
    mask: Tensor | None,
    triton: bool,
    precision: str,
    tiling: list[int] | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return outputs, h, c, n, m and what the backward pass needs: gates and memories."""
    state = _state(h0, c0, n0, m0)
    if not triton:
        final, saved = slstm_torch.forward(x, r, b, state=start(state, x), mask=mask)
        return saved.h, *final, saved.gates, saved.memories
    from xlstm_ts.kernels import slstm_triton

    h, final, kept = slstm_triton.forward(
        x,
        r,
        b,
        state=state,
        mask=mask,
        tiling=_tiling(x, precision, tiling),
        precision=precision,  # type: ignore[arg-type]
        save=save,
    )
    if kept is None:
        kept = slstm_triton.Saved(final.h.new_empty(0), final.h.new_empty(0))
    return h, *final, *kept


@_slstm.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    x, *_, triton, _, _, save = inputs
    B, T, _, H, D = x.shape
    room = x.new_empty(0, dtype=torch.float32 if triton else x.dtype).new_empty
    final = (room(B, H, D) for _ in range(4))
    if triton and not save:
        return x.new_empty(B, T, H, D), *final, room(0), room(0)
    if triton:
        return x.new_empty(B, T, H, D), *final, room(T, 4, H, B, D), room(T + 1, 2, H, B, D)
    h = room(T, B, H, D).transpose(0, 1)
    return h, *final, room(T, 5, H, B, D), room(2, T + 1, H, B, D)


@torch.library.custom_op("xlstm_ts::slstm_backward", mutates_args=())
def _slstm_backward(
    dh: Tensor,
    dh1: Tensor | None,
    dc1: Tensor | None,
    dn1: Tensor | None,
    x: Tensor,
    r: Tensor,
    b: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    n0: Tensor | None,
    m0: Tensor | None,
    mask: Tensor | None,
    h: Tensor,
    gates: Tensor,
    memories: Tensor,
    triton: bool,
    precision: str,
    tiling: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, r, b, h0, c0, n0, m0; the last four always."""
    state = _state(h0, c0, n0, m0)
    nothing = gates.new_zeros(1).expand(h.shape[0], *h.shape[2:])
    last = [nothing if part is None else part for part in (dh1, dc1, dn1)]
    dfinal = SLSTMState(last[0], last[1], last[2], nothing)
    if not triton:
        saved = slstm_torch.Saved(h, gates, memories)
        dx, dr, db, dstate = slstm_torch.backward(
            dh, dfinal, r=r, state=start(state, x), saved=saved, mask=mask
        )
        return dx, dr, db, *dstate
    from xlstm_ts.kernels import slstm_triton

    dx, dr, db, dstate = slstm_triton.backward(
        dh,
        None if dh1 is dc1 is dn1 is None else dfinal,
        r=r,
        h=h,
        saved=slstm_triton.Saved(gates, memories),
        state=state,
        mask=mask,
        tiling=_tiling(x, precision, tiling),
        precision=precision,  # type: ignore[arg-type]
    )
    return dx, dr.to(r.dtype), db.to(b.dtype), *dstate


@_slstm_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    weights, (h, gates, *_) = inputs[4:7], inputs[12:]
    B, _, H, D = h.shape
    first = (gates.new_empty(B, H, D) for _ in range(4))
    return *(x.new_empty(x.shape) for x in weights), *first


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, triton, precision, tiling, save = inputs
    ctx.plan, ctx.saved = (triton, precision, tiling), save or not triton
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[0], *output[5:])


def _backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    dh, dh1, dc1, dn1, *_ = upstream
    tensors = ctx.saved_tensors
    start, h = tensors[3], tensors[8]
    if not ctx.saved:  # within torch.vmap no tensor says that a gradient is wanted
        tensors = (*tensors[:9], *_call(*tensors[:8], *ctx.plan, True)[5:])
    dh = torch.zeros_like(h) if dh is None else dh
    with full_precision(h):
        grads = _call_backward(dh, dh1, dc1, dn1, *tensors, *ctx.plan)
    first = (None,) * 4 if start is None else grads[3:]
    return *grads[:3], *first, None, None, None, None, None


_call = differentiable(_slstm, _backward, _setup)
_call_backward = differentiable(_slstm_backward)


def _state(
    h: Tensor | None, c: Tensor | None, n: Tensor | None, m: Tensor | None
) -> SLSTMState | None:
    if h is None or c is None or n is None or m is None:
        return None
    return SLSTMState(h, c, n, m)


def start(state: SLSTMState | None, x: Tensor) -> SLSTMState:
    """Return the memory before the first step, an empty one where there is none."""
    if state is not None:
        return state
    B, *_, H, D = x.shape
    return slstm_initial_state(B, H, D, dtype=x.dtype, device=x.device)


def _tiling(x: Tensor, precision: str, tiling: list[int] | None) -> ScanTiling:
    if tiling is not None:
        return ScanTiling(*tiling)
    return slstm_tiling(x.shape[-1], precision)  # type: ignore[arg-type]
