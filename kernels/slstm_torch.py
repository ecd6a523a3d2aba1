"""The sLSTM in plain torch: a scan over a sequence, and one step.

Beck et al. (2024), arXiv:2405.04517, equations 8 to 17. The scan keeps heads in front of the
batch, so that the block-diagonal recurrence is one batched product per step, and saves h, c, n
and m only: the backward pass computes the gates of each step again, which costs less than to keep
them. An absent step has i = -inf and f = inf, which leaves the memories alone, and keeps `h`
explicitly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.states import SLSTMState

# Steps whose gates are gathered, and taken back, together.
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
        memories = [_room_after(start.transpose(0, 1), length) for start in (c, n, m)]
        hs, cs, ns, ms = outputs.transpose(1, 2), *memories
        absent = None if mask is None else ~mask.mT[:, None, :, None]
        through = x.new_empty(*hs.shape[1:3], weight.shape[-1])  # (H, B, 4 D_out)
        recurrent = _by_gate(through)
        for span in _spans(length):
            for t, raw in enumerate(_from_input(x[:, span], b), start=span.start):
                torch.bmm(hs[t], weight, out=through)
                raw += recurrent
                write, decay, z, o = _activate(raw, ms[t], out=ms[t + 1])
                torch.addcmul(z.mul_(write), decay, cs[t], out=cs[t + 1])
                torch.addcmul(write, decay, ns[t], out=ns[t + 1])
                torch.div(o.mul_(cs[t + 1]), ns[t + 1], out=hs[t + 1])
                if absent is not None:
                    hs[t + 1] = torch.where(absent[t], hs[t], hs[t + 1])
        ctx.save_for_backward(x, r, b, outputs, *memories, absent)  # type: ignore[arg-type]
        last = [outputs[-1].clone(), *(part[-1].transpose(0, 1).contiguous() for part in memories)]
        ctx.mark_non_differentiable(last[-1])
        return outputs[1:].transpose(0, 1), *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        dhs, *dlast, _ = upstream
        x, r, b, outputs, cs, ns, ms, absent = ctx.saved_tensors
        B, T, _, H, D = x.shape
        dhs, back = dhs.permute(1, 2, 0, 3), r.flatten(1, 2)  # (H, 4 D_out, D_in)
        forth = back.mT.contiguous()
        dx, dr = x.new_empty(x.shape), torch.zeros_like(back)
        dh, dmemory = dlast[0].transpose(0, 1).clone(), torch.stack(dlast[1:]).transpose(1, 2)
        dmemory = dmemory.contiguous()
        for span in reversed(_spans(T)):
            heads = outputs[span].flatten(0, 1).transpose(0, 1)  # (H, S B, D)
            raw = _from_input(x[:, span], b)
            raw += _by_gate((heads @ forth).unflatten(1, (-1, B))).movedim(2, 0)
            factors = _factors(raw, outputs, cs, ns, ms, span=span, absent=absent)
            draw = raw.new_empty(H, raw.shape[0], B, 4, D)
            for s in reversed(range(raw.shape[0])):
                t = span.start + s
                dgates = draw[:, s].movedim(2, 0)
                dh += dhs[t]
                dmemory.addcmul_(dh, factors.memory[s])
                torch.mul(dmemory[0], factors.c[s], out=dgates[:3])
                dgates[:2].addcmul_(dmemory[1], factors.n[s])
                torch.mul(dh, factors.o[s], out=dgates[3])
                dmemory *= factors.decay[s]
                dthrough = draw[:, s].flatten(2) @ back
                dh = dthrough if absent is None else dthrough.add_(torch.where(absent[t], dh, 0))
            dx[:, span] = draw.permute(2, 1, 3, 0, 4)
            dr.baddbmm_(draw.flatten(3).flatten(1, 2).mT, heads)
        dc, dn = dmemory.transpose(1, 2)
        dm = dmemory[0] * cs[0] + dmemory[1] * ns[0]
        db = dx.sum((0, 1))
        return dx, dr.view(r.shape), db, dh.transpose(0, 1), dc, dn, dm.transpose(0, 1), None


class _Factors(NamedTuple):
    """What each gradient of a step is multiplied by, S steps at once."""

    memory: Tensor  # (S, 2, H, B, D), from h to c and n
    c: Tensor  # (S, 3, H, B, D), from c to i, f and z
    n: Tensor  # (S, 2, H, B, D), from n to i and f
    o: Tensor  # (S, H, B, D), from h to o
    decay: Tensor  # (S, H, B, D), from c and n to those before


def _factors(
    raw: Tensor,
    outputs: Tensor,
    cs: Tensor,
    ns: Tensor,
    ms: Tensor,
    *,
    span: slice,
    absent: Tensor | None,
) -> _Factors:
    after = slice(span.start + 1, span.stop + 1)
    h, n = outputs[after].transpose(1, 2), ns[after]
    write, decay, z, o = _activate(raw, ms[span])
    memory, c = torch.stack((o, h.neg()), 1).div_(n.unsqueeze(1)), torch.empty_like(raw[:, :3])
    forget = raw[:, 1].neg_().sigmoid_().mul_(decay)
    torch.mul(write, z, out=c[:, 0])
    torch.mul(forget, cs[span], out=c[:, 1])
    torch.addcmul(write, c[:, 0], z, value=-1, out=c[:, 2])
    forget.mul_(ns[span])
    o = torch.addcmul(h, h, o, value=-1)
    if absent is not None:
        memory = torch.where(absent[span].unsqueeze(1), 0, memory)
        o = torch.where(absent[span], 0, o)
    return _Factors(memory, c, raw[:, :2], o, decay)


def _from_input(x: Tensor, b: Tensor) -> Tensor:
    """Lay out the gates of some steps as `(S, 4, H, B, D)`, with the bias."""
    x = x.permute(1, 2, 3, 0, 4)
    return torch.add(x, b.unsqueeze(2), out=x.new_empty(x.shape))


def _by_gate(recurrent: Tensor) -> Tensor:
    """View `(H, ..., 4 D)` as `(4, H, ..., D)`."""
    return recurrent.unflatten(-1, (4, -1)).movedim(-2, 0)


def _activate(raw: Tensor, m: Tensor, *, out: Tensor | None = None) -> tuple[Tensor, ...]:
    """Turn i, f, z, o `(..., 4, H, B, D)` into write, decay, tanh z, sigmoid o, all but f in place.

    Write and decay are the stabilised gates of equations 16 and 17; the new m goes to `out`.
    """
    i, f, z, o = raw.unbind(-4)
    decay = logsigmoid(f).add_(m)
    m = torch.maximum(decay, i, out=out)
    return i.sub_(m).exp_(), decay.sub_(m).exp_(), z.tanh_(), o.sigmoid_()


def _room_after(start: Tensor, length: int) -> Tensor:
    """Return `(T + 1, ...)`, uninitialised but for the first entry."""
    room = start.new_empty(length + 1, *start.shape)
    room[0] = start
    return room


def _spans(length: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
