"""The sLSTM in plain torch: a scan over a sequence, and one step.

Beck et al. (2024), arXiv:2405.04517, equations 8 to 17. The scan keeps heads in front of the
batch, so the block-diagonal recurrence is one batched product per step; what the backward pass
sends to the recurrent weights is one product after its loop. An absent step has i = -inf and
f = inf, which leaves the memories alone, and keeps `h` explicitly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.states import SLSTMState


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
        B, T, _, H, D = x.shape
        weight = r.flatten(1, 2).mT  # (H, D_in, 4 D_out)
        hs, gates = x.new_empty(T, B, H, D), x.new_empty(T, 5, H, B, D)
        cs, ns = x.new_empty(T + 1, H, B, D), x.new_empty(T + 1, H, B, D)
        start, m = _heads_first(h), _heads_first(m)
        cs[0], ns[0] = _heads_first(c), _heads_first(n)
        h, keep = start, _absent(mask)
        for t in range(T):
            recurrent = torch.bmm(h, weight).unflatten(-1, (4, D)).permute(2, 0, 1, 3)
            torch.add((x[:, t] + b).permute(1, 2, 0, 3), recurrent, out=gates[t, :4])
            m = _activate(gates[t], m)
            new = _remember(gates[t], (cs[t], cs[t + 1]), (ns[t], ns[t + 1]))
            h = new if keep is None else torch.where(keep[t], h, new)
            hs[t] = _heads_first(h)
        ctx.save_for_backward(r, start, hs, cs, ns, gates, keep)
        m = _heads_first(m).contiguous()
        ctx.mark_non_differentiable(m)
        return hs.transpose(0, 1), *(_heads_first(last).contiguous() for last in (h, cs[-1], ns[-1])), m

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        dhs, *last, _ = upstream
        r, start, hs, cs, ns, gates, keep = ctx.saved_tensors
        T, _, H, B, D = gates.shape
        weight = r.flatten(1, 2)  # (H, 4 D_out, D_in)
        dh, dc, dn = (_heads_first(s).clone() for s in last)
        dx, dr = gates.new_empty(T, B, 4, H, D), torch.zeros_like(weight)
        draw = gates.new_empty(H, B, 4, D)
        for t in reversed(range(T)):
            dh += _heads_first(dhs[:, t])
            kept, n = None, ns[t + 1]
            if keep is not None:
                kept, dh = torch.where(keep[t], dh, 0), torch.where(keep[t], 0, dh)
                n = torch.where(keep[t], 1, n)
            _backward_step(draw, gates[t], (dh, dc, dn), _heads_first(hs[t]), n, cs[t], ns[t])
            dx[t] = draw.permute(1, 2, 0, 3)
            before = _heads_first(hs[t - 1]) if t else start
            dr.baddbmm_(draw.flatten(2).mT, before)
            dh = torch.bmm(draw.flatten(2), weight)
            dh = dh if kept is None else dh + kept
        dm = dc * cs[0] + dn * ns[0]
        begin = (_heads_first(s) for s in (dh, dc, dn, dm))
        return dx.transpose(0, 1), dr.unflatten(1, (4, D)), dx.sum((0, 1)), *begin, None


def _activate(gates: Tensor, m: Tensor) -> Tensor:
    """Turn raw i, f, z, o into (write, f, tanh z, sigmoid o, decay) in place; return the new m."""
    i, f, z, o, decay = gates
    carried = logsigmoid(f) + m
    m = torch.maximum(carried, i)
    torch.sub(carried, m, out=decay)
    i.sub_(m)
    gates[::4].exp_()
    z.tanh_()
    o.sigmoid_()
    return m


def _remember(gates: Tensor, c: tuple[Tensor, Tensor], n: tuple[Tensor, Tensor]) -> Tensor:
    """Write the new memories beside the old ones; return the output."""
    write, _, z, o, decay = gates
    torch.addcmul(write * z, decay, c[0], out=c[1])
    torch.addcmul(write, decay, n[0], out=n[1])
    return (o * c[1]).div_(n[1])


def _backward_step(draw, gates, grads, h, n, c_, n_) -> None:
    write, f, z, o, decay = gates
    dh, dc, dn = grads
    di, df, dz, do = draw.unbind(2)
    per_n = dh / n
    dc.addcmul_(per_n, o)
    dn.addcmul_(per_n, h, value=-1)
    dhh = dh * h
    torch.addcmul(dhh, dhh, o, value=-1, out=do)
    torch.mul(torch.addcmul(dn, dc, z), write, out=di)
    dwritten = dc * write
    torch.addcmul(dwritten, dwritten * z, z, value=-1, out=dz)
    slope = torch.sigmoid(-f).mul_(decay)
    torch.mul((dc * c_).addcmul_(dn, n_), slope, out=df)
    dc *= decay
    dn *= decay


def _heads_first(x: Tensor) -> Tensor:
    """Swap batch and heads, `(B, H, D)` to `(H, B, D)` and back."""
    return x.transpose(0, 1)


def _absent(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask.mT[:, None, :, None]
