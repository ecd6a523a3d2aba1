"""The sLSTM in plain torch: a scan over a sequence, and one step.

Beck et al. (2024), arXiv:2405.04517, equations 8 to 17. The scan keeps heads in front of the
batch, so that the block-diagonal recurrence is one batched product per step, and saves h, c, n
and m only: the backward pass computes the gates of each step again, which costs less than to keep
them. An absent step has i = -inf and f = inf, which leaves the memories alone, and keeps `h`
explicitly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.states import SLSTMState
# Steps whose gates are gathered, and taken back, together.
BLOCK = 32


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
        length, weight = x.shape[1], r.flatten(1, 2).mT  # (H, D_in, 4 D_out)
        outputs = _room_after(h, length)
        memories = [_room_after(start.transpose(0, 1), length) for start in (c, n, m)]
        hs, cs, ns, ms = outputs.transpose(1, 2), *memories
        absent = None if mask is None else ~mask.mT[:, None, :, None]
        for span in _spans(length):
            for t, raw in enumerate(_from_input(x[:, span], b), start=span.start):
                raw += _by_gate(hs[t] @ weight)
                write, decay, z, o = _activate(raw, ms[t], out=ms[t + 1])
                torch.addcmul(z.mul_(write), decay, cs[t], out=cs[t + 1])
                torch.addcmul(write, decay, ns[t], out=ns[t + 1])
                torch.div(o.mul_(cs[t + 1]), ns[t + 1], out=hs[t + 1])
                if absent is not None:
                    hs[t + 1] = torch.where(absent[t], hs[t], hs[t + 1])
        ctx.save_for_backward(x, r, b, outputs, *memories, absent)
        last = [outputs[-1].clone(), *(part[-1].transpose(0, 1).contiguous() for part in memories)]
        ctx.mark_non_differentiable(last[-1])
        return outputs[1:].transpose(0, 1), *last

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        dhs, *dlast, _ = upstream
        x, r, b, outputs, cs, ns, ms, absent = ctx.saved_tensors
        B, T, _, H, D = x.shape
        hs, dhs, weight = outputs.transpose(1, 2), dhs.permute(1, 2, 0, 3), r.flatten(1, 2)
        dx, dr = torch.empty_like(x, memory_format=torch.contiguous_format), torch.zeros_like(weight)
        dh, dc, dn = (part.transpose(0, 1).clone() for part in dlast)
        for span in reversed(_spans(T)):
            after = slice(span.start + 1, span.stop + 1)
            heads = outputs[span].flatten(0, 1).transpose(0, 1)  # (H, S B, D)
            raw = _from_input(x[:, span], b)
            raw += _by_gate((heads @ weight.mT).unflatten(1, (-1, B))).movedim(2, 0)
            write, decay, z, o = _activate(raw, ms[span])
            forget = raw[:, 1].neg_().sigmoid_()
            to_c, to_n, to_o = o / ns[after], hs[after] / ns[after], hs[after] * (1 - o)
            to_z = write * (1 - z * z)
            if absent is not None:
                to_c, to_n, to_o = (torch.where(absent[span], 0, p) for p in (to_c, to_n, to_o))
            draw = raw.new_empty(H, raw.shape[0], B, 4, D)
            for s in reversed(range(raw.shape[0])):
                t = span.start + s
                di, df, dz, do = draw[:, s].unbind(2)
                dh += dhs[t]
                dc.addcmul_(dh, to_c[s])
                dn.addcmul_(dh, to_n[s], value=-1)
                torch.mul(dh, to_o[s], out=do)
                torch.mul(dc, to_z[s], out=dz)
                torch.mul(torch.addcmul(dn, dc, z[s]), write[s], out=di)
                dc *= decay[s]
                dn *= decay[s]
                torch.mul((dc * cs[t]).addcmul_(dn, ns[t]), forget[s], out=df)
                dthrough = draw[:, s].flatten(2) @ weight
                dh = dthrough if absent is None else dthrough.add_(torch.where(absent[t], dh, 0))
            dx[:, span] = draw.permute(2, 1, 3, 0, 4)
            dr.baddbmm_(draw.flatten(3).flatten(1, 2).mT, heads)
        dm = dc * cs[0] + dn * ns[0]
        start = (part.transpose(0, 1) for part in (dh, dc, dn, dm))
        return dx, dr.view(r.shape), dx.sum((0, 1)), *start, None


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
