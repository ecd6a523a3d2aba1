"""The sLSTM in plain torch: a scan over a sequence, and one step.

Beck et al. (2024), arXiv:2405.04517, equations 8 to 17. The scan keeps heads in front of the
batch, so that the block-diagonal recurrence is one batched product per step. What needs no
recurrence is done for a block of steps at once: in the backward pass that is all but the few
products that take the gradients of h, c and n from one step to the one before. An absent step has
i = -inf and f = inf, which leaves the memories alone, and keeps `h` explicitly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.precision import full_precision
from xlstm_ts.kernels.states import SLSTMState

# Steps per block: few, so that all that belongs to a block stays in the cache.
BLOCK = 4


def step(
    x: Tensor, r: Tensor, b: Tensor, *, state: SLSTMState, mask: Tensor | None = None
) -> SLSTMState:
    """Advance by one step, x `(B, 4, H, D)`, mask `(B,)`; autograd sees it all."""
    h, c, n, m = state
    recurrent = (r @ h[:, :, None, :, None]).squeeze(-1).transpose(1, 2)
    i, f, z, o = (x + b + recurrent).unbind(1)
    carried = logsigmoid(f) + m
    m = torch.maximum(carried, i).detach()
    decay, write = torch.exp(carried - m), torch.exp(i - m)
    c = decay * c + write * torch.tanh(z)
    n = decay * n + write
    if mask is None:
        return SLSTMState(torch.sigmoid(o) * c / n, c, n, m)
    present = mask[:, None, None]
    # An empty memory has n = 0, and 0 / 0 would reach the gradient even where it is not chosen.
    ratio = c / torch.where(present, n, 1)
    return SLSTMState(torch.where(present, torch.sigmoid(o) * ratio, h), c, n, m)


def scan(
    x: Tensor, r: Tensor, b: Tensor, *, state: SLSTMState, mask: Tensor | None = None
) -> tuple[Tensor, SLSTMState]:
    """Run over a sequence.

    Parameters
    ----------
    x
        What the input gives to the gates i, f, z, o, `(B, T, 4, H, D)`; all tensors share one
        dtype, float32 or float64.
    r
        Recurrent weights, `(H, 4, D_out, D_in)`.
    b
        Bias, `(4, H, D)`.
    state
        Memory before the first step.
    mask
        `(B, T)`, true where a step is present; there, absent steps have i = -inf, f = inf in `x`.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, D)`.
    state : SLSTMState
        Memory after the last step.
    """
    h, *last = _Scan.apply(x, r, b, *state, mask)  # type: ignore[no-untyped-call]
    return h, SLSTMState(*last)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        r: Tensor,
        b: Tensor,
        h: Tensor,
        c: Tensor,
        n: Tensor,
        m: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, ...]:
        length, weight = x.shape[1], r.flatten(1, 2).mT.contiguous()  # (H, D_in, 4 D_out)
        outputs = _room_after(h, length)
        cs, ns, ms = (_room_after(start.transpose(0, 1), length) for start in (c, n, m))
        hs, absent = outputs.transpose(1, 2), _absent(mask)
        through = x.new_empty(*cs.shape[1:3], weight.shape[-1])  # (H, B, 4 D_out)
        recurrent = through.unflatten(-1, (4, -1)).permute(2, 0, 1, 3)
        blocks = [_from_input(x[:, span], b) for span in _spans(length)]
        for t, gates in enumerate(chain.from_iterable(blocks)):
            torch.bmm(hs[t], weight, out=through)
            gates[:4] += recurrent
            _activate(gates, ms[t], out=ms[t + 1])
            _advance(gates, (cs[t], ns[t]), out=(hs[t + 1], cs[t + 1], ns[t + 1]))
            if absent is not None:
                hs[t + 1] = torch.where(absent[t], hs[t], hs[t + 1])
        ctx.save_for_backward(r, absent, outputs, cs, ns, *blocks)  # type: ignore[arg-type]
        last = [part[-1].transpose(0, 1).clone() for part in (cs, ns, ms)]
        ctx.mark_non_differentiable(last[-1])
        return outputs[1:].transpose(0, 1), outputs[-1].clone(), *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        with full_precision(upstream[0]):
            return *_backward(ctx.saved_tensors, upstream), None


def _backward(tensors: Sequence[Tensor], upstream: Sequence[Tensor]) -> tuple[Tensor, ...]:
    dhs, *dlast, _ = upstream
    r, absent, outputs, cs, ns, *blocks = tensors
    B, T, H, D = dhs.shape
    weight, dhs = r.flatten(1, 2), dhs.permute(1, 2, 0, 3)  # (H, 4 D_out, D_in)
    dx = r.new_empty(B, T, 4, H, D)
    dr, db = torch.zeros_like(weight), r.new_zeros(H, 4, D)
    dh, *rest = (part.transpose(0, 1).contiguous() for part in dlast)
    dmemory = torch.stack(rest)
    for gates, span in zip(reversed(blocks), reversed(_spans(T)), strict=True):
        factors = _factors(gates, outputs, cs, ns, span=span, absent=absent)
        draw = r.new_empty(H, len(gates), B, 4, D)
        for t in reversed(range(span.start, span.stop)):
            dh = dh + dhs[t]
            dstep = draw[:, t - span.start]
            _step_backward(dh, dmemory, factors, t - span.start, out=dstep.movedim(2, 0))
            dthrough = torch.bmm(dstep.flatten(2), weight)
            dh = dthrough if absent is None else dthrough.add_(torch.where(absent[t], dh, 0))
        dx[:, span] = draw.permute(2, 1, 3, 0, 4)
        before = outputs[span].flatten(0, 1).transpose(0, 1)
        db += draw.sum((1, 2))
        dr.baddbmm_(draw.flatten(3).flatten(1, 2).mT, before)
    dm = dmemory[0] * cs[0] + dmemory[1] * ns[0]
    start = (part.transpose(0, 1) for part in (dh, *dmemory, dm))
    return dx, dr.view(r.shape), db.transpose(0, 1), *start


def _activate(gates: Tensor, m: Tensor, *, out: Tensor) -> None:
    """Turn i, f, z, o, _ `(5, H, B, D)` in place into write, f, tanh z, sigmoid o, decay.

    Write and decay are the stabilised gates of equations 16 and 17; the new m goes to `out`.
    """
    i, f, z, o, decay = gates.unbind(0)
    torch.add(logsigmoid(f), m, out=decay)
    torch.maximum(decay, i, out=out)
    gates[::4].sub_(out).exp_()
    z.tanh_()
    o.sigmoid_()


def _advance(
    gates: Tensor, memory: tuple[Tensor, Tensor], *, out: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write the next h, c and n to `out` (equations 8 to 10)."""
    write, _, z, o, decay = gates.unbind(0)
    h, c, n = out
    torch.addcmul(z * write, decay, memory[0], out=c)
    torch.addcmul(write, decay, memory[1], out=n)
    torch.div(o * c, n, out=h)


class _Factors(NamedTuple):
    """What the gradients of S steps are multiplied by, each `(S, ..., H, B, D)`."""

    memory: Tensor  # from h to c and n
    c: Tensor  # from c to i, f and z
    n: Tensor  # from n to i and f
    o: Tensor  # from h to o
    decay: Tensor  # from c and n to those before


def _factors(
    gates: Tensor,
    outputs: Tensor,
    cs: Tensor,
    ns: Tensor,
    *,
    span: slice,
    absent: Tensor | None,
) -> _Factors:
    write, f, z, o, decay = gates.unbind(1)
    after = slice(span.start + 1, span.stop + 1)
    h = outputs[after].transpose(1, 2)
    memory = torch.stack((o, h.neg()), 1).div_(ns[after].unsqueeze(1))
    forget = torch.sigmoid(-f).mul_(decay)
    written = write * z
    c = torch.stack((written, forget * cs[span], torch.addcmul(write, written, z, value=-1)), 1)
    n = torch.stack((write, forget.mul_(ns[span])), 1)
    o = torch.addcmul(h, h, o, value=-1)
    if absent is not None:
        memory = torch.where(absent[span].unsqueeze(1), 0, memory)
        o = torch.where(absent[span], 0, o)
    return _Factors(memory, c, n, o, decay)


def _step_backward(dh: Tensor, dmemory: Tensor, factors: _Factors, s: int, *, out: Tensor) -> None:
    """Write the gradients of the gates to `out`; take dc and dn back by one step in place."""
    dmemory.addcmul_(dh, factors.memory[s])
    torch.mul(dmemory[0], factors.c[s], out=out[:3])
    out[:2].addcmul_(dmemory[1], factors.n[s])
    torch.mul(dh, factors.o[s], out=out[3])
    dmemory.mul_(factors.decay[s])


def _from_input(x: Tensor, b: Tensor) -> Tensor:
    """Lay out what the input gives to S steps as `(S, 5, H, B, D)`, with room for the decay."""
    x = x.permute(1, 2, 3, 0, 4)
    gates = x.new_empty(x.shape[0], 5, *x.shape[2:])
    torch.add(x, b.unsqueeze(2), out=gates[:, :4])
    return gates


def _room_after(start: Tensor, length: int) -> Tensor:
    """Return `(T + 1, ...)`, uninitialised but for the first entry."""
    room = start.new_empty(length + 1, *start.shape)
    room[0] = start
    return room


def _absent(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask.mT[:, None, :, None]


def _spans(length: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
