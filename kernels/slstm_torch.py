"""The sLSTM in plain torch: a scan over a sequence, and one step.

Beck et al. (2024), arXiv:2405.04517, equations 8 to 17. The scan keeps heads in front of the
batch, so that the block-diagonal recurrence is one batched product per step. What needs no
recurrence is done for a block of steps at once: in the backward pass that is all but the few
products that take the gradients of h, c and n from one step to the one before. An absent step has
i = -inf and f = inf, which leaves the memories alone, and keeps `h` explicitly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

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


class Saved(NamedTuple):
    """What `backward` needs besides the inputs.

    Attributes
    ----------
    h
        Outputs, `(B, T, H, D)`, laid out step by step.
    gates
        Write, f, tanh z, sigmoid o and decay of each step, `(T, 5, H, B, D)`.
    memories
        c and n before each step and after the last, `(2, T + 1, H, B, D)`.
    """

    h: Tensor
    gates: Tensor
    memories: Tensor


def forward(
    x: Tensor, r: Tensor, b: Tensor, *, state: SLSTMState, mask: Tensor | None = None
) -> tuple[SLSTMState, Saved]:
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
    state : SLSTMState
        Memory after the last step.
    saved : Saved
        The outputs, and what the backward pass needs besides.
    """
    B, T, _, H, D = x.shape
    weight = r.flatten(1, 2).mT.contiguous()  # (H, D_in, 4 D_out)
    outputs, gates = x.new_empty(T, B, H, D), x.new_empty(T, 5, H, B, D)
    memories, ms = x.new_empty(2, T + 1, H, B, D), x.new_empty(T + 1, H, B, D)
    (cs, ns), hs, absent = memories, outputs.transpose(1, 2), _absent(mask)
    h, cs[0], ns[0], ms[0] = (part.transpose(0, 1) for part in state)
    through = x.new_empty(H, B, weight.shape[-1])
    recurrent = through.unflatten(-1, (4, -1)).permute(2, 0, 1, 3)
    for span in _spans(T):
        torch.add(x[:, span].permute(1, 2, 3, 0, 4), b.unsqueeze(2), out=gates[span, :4])
        for t in range(span.start, span.stop):
            torch.bmm(h, weight, out=through)
            gates[t, :4] += recurrent
            _activate(gates[t], ms[t], out=ms[t + 1])
            _advance(gates[t], (cs[t], ns[t]), out=(hs[t], cs[t + 1], ns[t + 1]))
            if absent is not None:
                hs[t] = torch.where(absent[t], h, hs[t])
            h = hs[t]
    last = (_contiguous(part) for part in (h, cs[-1], ns[-1], ms[-1]))
    return SLSTMState(*last), Saved(outputs.transpose(0, 1), gates, memories)


def backward(
    dh: Tensor,
    dfinal: SLSTMState,
    *,
    r: Tensor,
    state: SLSTMState,
    saved: Saved,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, SLSTMState]:
    """Return the gradients of x, r, b and the first state of `forward`; m of `dfinal` is unused."""
    B, T, H, D = dh.shape
    hs, dhs = saved.h.permute(1, 2, 0, 3), dh.permute(1, 2, 0, 3)
    (cs, ns), absent, weight = saved.memories, _absent(mask), r.flatten(1, 2)  # (H, 4 D_out, D_in)
    dx, dr, db = r.new_empty(B, T, 4, H, D), torch.zeros_like(weight), r.new_zeros(H, 4, D)
    dlast, dc, dn, _ = (part.transpose(0, 1) for part in dfinal)
    dlast, dmemory = dlast.contiguous(), torch.stack((dc, dn))
    for span in reversed(_spans(T)):
        factors = _factors(saved.gates[span], hs[span], (cs, ns), span=span, absent=absent)
        draw = r.new_empty(H, span.stop - span.start, B, 4, D)
        for t in reversed(range(span.start, span.stop)):
            dlast = dlast + dhs[t]
            dstep = draw[:, t - span.start]
            _step_backward(dlast, dmemory, factors, t - span.start, out=dstep.movedim(2, 0))
            dthrough = torch.bmm(dstep.flatten(2), weight)
            if absent is not None:
                dthrough += torch.where(absent[t], dlast, 0)
            dlast = dthrough
        dx[:, span] = draw.permute(2, 1, 3, 0, 4)
        db += draw.sum((1, 2))
        before = _before(hs, state.h, span=span).transpose(0, 1).flatten(1, 2)  # (H, S B, D)
        dr.baddbmm_(draw.flatten(3).flatten(1, 2).mT, before)
    dm = dmemory[0] * cs[0] + dmemory[1] * ns[0]
    first = (_contiguous(part) for part in (dlast, *dmemory, dm))
    return dx, dr.view(r.shape), db.transpose(0, 1).contiguous(), SLSTMState(*first)


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
    h: Tensor,
    memories: tuple[Tensor, Tensor],
    *,
    span: slice,
    absent: Tensor | None,
) -> _Factors:
    write, f, z, o, decay = gates.unbind(1)
    cs, ns = memories
    after = slice(span.start + 1, span.stop + 1)
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


def _before(hs: Tensor, start: Tensor, *, span: slice) -> Tensor:
    """Return the outputs before each step of a span, `(S, H, B, D)`."""
    if span.start:
        return hs[span.start - 1 : span.stop - 1]
    return torch.cat((start.transpose(0, 1).unsqueeze(0), hs[: span.stop - 1]))


def _contiguous(x: Tensor) -> Tensor:
    """Return a copy with the batch in front, never a view."""
    return x.transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _absent(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask.mT[:, None, :, None]


def _spans(length: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
