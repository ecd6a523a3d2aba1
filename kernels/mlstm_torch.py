"""The mLSTM in plain torch: chunkwise over a sequence, and one step.

Notation of one chunk with rows j <= i: `b` is the running sum of log f, `[C | n]` the memory
before the chunk as one matrix, `[V | 1]` the values with a column of ones. Numerator and
denominator of the output then come out of the same products,

    [num | d] = u * (s Q [C | n]) + (s Q K^T * P) [V | 1],      h = num / max(|d|, floor)
    [C' | n'] = decay * [C | n] + (write * K)^T [V | 1]

with P_ij = exp(b_i - b_j + i_j - m_i) and s = K**-0.5. A chunk as long as the sequence is the
parallel form. Beck et al. (2024), arXiv:2405.04517, equations 19 to 27. The backward pass is the
gradient of exactly this, normaliser included. A step with i = -inf, f = inf leaves no trace.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.states import MLSTMState

# The denominator changes sign, and near zero it magnifies the rounding of its sum in h and more in
# the gradients. Over more steps than this it is summed in float64, which costs a sixth more time.
LONGEST_SINGLE_SUM = 32

# A forget gate at -inf resets the memory, but 0 * -inf is no number. This does the same, and leaves
# running sums of log f digits enough to find the stabiliser from.
LEAST_LOG_F = -1e6


def step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, state: MLSTMState
) -> tuple[Tensor, MLSTMState]:
    """Advance by one step, q, k `(B, H, K)`, v `(B, H, V)`, i, f `(B, H)`; autograd sees it all."""
    c, n, m = state
    carried = logsigmoid(f) + m
    m = torch.maximum(carried, i).detach()
    decay, write = torch.exp(carried - m).unsqueeze(-1), torch.exp(i - m).unsqueeze(-1)
    written = write * k
    c = decay.unsqueeze(-1) * c + written.unsqueeze(-1) * v.unsqueeze(-2)
    n = decay * n + written
    q = q * q.shape[-1] ** -0.5
    d = (n * q).sum(-1)
    num = (q.unsqueeze(-2) @ c).squeeze(-2)
    return num / torch.maximum(d.abs(), _floor(m)).unsqueeze(-1), MLSTMState(c, n, m)


class Saved(NamedTuple):
    """What `backward` needs besides the inputs; chunks are counted by N.

    Attributes
    ----------
    h
        Outputs, `(B, T, H, V)`.
    d
        Raw denominators, `(B * H, T)`.
    memories
        `[C | n]` before each chunk and after the last, `(N + 1, B * H, K, V + 1)`.
    stabilisers
        Their m, `(N + 1, B * H)`.
    """

    h: Tensor
    d: Tensor
    memories: Tensor
    stabilisers: Tensor


def forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, state: MLSTMState, chunk_size: int
) -> tuple[MLSTMState, Saved]:
    """Run over a sequence in chunks; the last one may be shorter.

    Parameters
    ----------
    q, k
        Queries and keys, `(B, T, H, K)`; all tensors share one dtype, float32 or float64.
    v
        Values, `(B, T, H, V)`.
    i, f
        Gate pre-activations, `(B, T, H)`.
    state
        Memory before the first step.
    chunk_size
        Steps per chunk, at least 1; T or more gives the parallel form.

    Returns
    -------
    state : MLSTMState
        Memory after the last step.
    saved : Saved
        The outputs, and what the backward pass needs besides.
    """
    B, T, H, V = v.shape
    spans = _spans(T, chunk_size)
    rows_i, log_f = _rows(i), _log_forget(_rows(f))
    h, d = torch.empty_like(v), torch.empty_like(rows_i)
    memories = v.new_empty(len(spans) + 1, B * H, q.shape[-1], V + 1)
    stabilisers = v.new_empty(len(spans) + 1, B * H, 1)
    memories[0], stabilisers[0] = _join(state.c, state.n), state.m.reshape(-1, 1)
    for t, span in enumerate(spans):
        chunk = _cut(q, k, v, span=span)
        gates = _gates(rows_i[:, span], log_f[:, span], stabilisers[t])
        num, d[:, span] = _read(chunk, gates, memories[t])
        h[:, span] = _unrows(num, B)
        _write(chunk, gates, memories[t], out=memories[t + 1])
        stabilisers[t + 1] = gates.m[:, -1]
    c, n = _split(memories[-1], B)
    m = stabilisers[-1].reshape(B, H).clone()
    return MLSTMState(c, n, m), Saved(h, d, memories, stabilisers)


def backward(
    dh: Tensor,
    dc: Tensor,
    dn: Tensor,
    *,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    saved: Saved,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, MLSTMState]:
    """Return the gradients of all inputs of `forward`, from those of outputs, C and n."""
    h, d, memories, stabilisers = saved
    rows_i, rows_f = _rows(i), _rows(f)
    log_f = _log_forget(rows_f)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    di, df = torch.empty_like(rows_i), torch.empty_like(rows_f)
    dmemory = _join(dc, dn)
    for t, span in reversed(list(enumerate(_spans(q.shape[1], chunk_size)))):
        chunk = _cut(q, k, v, span=span)
        gates = _gates(rows_i[:, span], log_f[:, span], stabilisers[t])
        dout = _read_backward(_rows(dh[:, span]), _rows(h[:, span]), d[:, span], gates.m)
        grads, dmemory = _chunk_backward(chunk, gates, memories[t], dout, dmemory)
        di[:, span], df[:, span] = grads.i, grads.f
        for whole, part in ((dq, grads.q), (dk, grads.k), (dv, grads.v)):
            whole[:, span] = _unrows(part, q.shape[0])
    df *= torch.sigmoid(-rows_f)
    dm = (dmemory * memories[0]).sum((-2, -1)).view(dn.shape[:2])
    B = q.shape[0]
    dstate = MLSTMState(*_split(dmemory, B), dm)
    return dq, dk, dv, _unrows(di, B).contiguous(), _unrows(df, B).contiguous(), dstate


class _Gates(NamedTuple):
    """What the gates of a chunk multiply: heads are folded into the batch, R = B * H."""

    p: Tensor  # (R, L, L), lower triangular
    u: Tensor  # (R, L, 1)
    m: Tensor  # (R, L, 1)

    @property
    def write(self) -> Tensor:
        """What is left of each step at the end of the chunk, `(R, L, 1)`."""
        return self.p[:, -1].unsqueeze(-1)

    @property
    def decay(self) -> Tensor:
        """What is left of the memory at the end of the chunk, `(R, 1, 1)`."""
        return self.u[:, -1:]


class _Chunk(NamedTuple):
    """Inputs of one chunk: `(R, L, K)` scaled queries and keys, `(R, L, V + 1)` values."""

    queries: Tensor
    keys: Tensor
    values: Tensor


class _Grads(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor


def _log_forget(f: Tensor) -> Tensor:
    return logsigmoid(f).clamp_min(LEAST_LOG_F)


def _gates(i: Tensor, log_f: Tensor, m: Tensor) -> _Gates:
    lower = i.new_ones(i.shape[-1], i.shape[-1]).tril_()
    # Each exponent sums its own forget gates: b_i - b_j would lose a small sum behind a large one.
    logits = (log_f.unsqueeze(-2) * lower) @ lower.tril(-1) + i.unsqueeze(-2)
    # The stabiliser may be any number near the row's maximum, so here b will do.
    b = log_f.cumsum(-1)
    top = torch.maximum((i - b).cummax(-1).values, m)
    m_rows = (b + top).unsqueeze(-1)
    return _Gates(logits.sub_(m_rows).exp_().tril_(), torch.exp(m - top).unsqueeze(-1), m_rows)


def _read(chunk: _Chunk, gates: _Gates, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs `(R, L, V)` and the raw denominators `(R, L)`."""
    weights = (chunk.queries @ chunk.keys.mT).mul_(gates.p)
    out = (chunk.queries @ memory).mul_(gates.u).baddbmm_(weights, chunk.values)
    num, d = out[..., :-1], out[..., -1:]
    if weights.shape[-1] > LONGEST_SINGLE_SUM:
        d = _double_denominator(chunk, gates, memory).to(d.dtype)
    return num / torch.maximum(d.abs(), _floor(gates.m)), d.squeeze(-1)


def _double_denominator(chunk: _Chunk, gates: _Gates, memory: Tensor) -> Tensor:
    queries, keys = chunk.queries.double(), chunk.keys.double()
    weights = (queries @ keys.mT).mul_(gates.p)
    return (queries @ memory[..., -1:].double()).mul_(gates.u).add_(weights.sum(-1, keepdim=True))


def _write(chunk: _Chunk, gates: _Gates, memory: Tensor, *, out: Tensor) -> None:
    torch.mul(memory, gates.decay, out=out)
    out.baddbmm_((chunk.keys * gates.write).mT, chunk.values)


def _read_backward(dh: Tensor, h: Tensor, d: Tensor, m: Tensor) -> Tensor:
    """Return the gradient of `[num | d]`."""
    d, floor = d.unsqueeze(-1), _floor(m)
    den = torch.maximum(d.abs(), floor)
    dd = (dh * h).sum(-1, keepdim=True).mul_(d.sign()).div_(-den)
    return torch.cat((dh / den, torch.where(d.abs() > floor, dd, 0)), -1)


def _chunk_backward(
    chunk: _Chunk, gates: _Gates, memory: Tensor, dout: Tensor, dmemory: Tensor
) -> tuple[_Grads, Tensor]:
    """Return the gradients of a chunk's inputs and of the memory before it."""
    queries, keys, values = chunk
    dscores = (dout @ values.mT).mul_(gates.p)
    weights = queries @ keys.mT
    flow = dscores * weights
    weights.mul_(gates.p)
    dq = (dout @ memory.mT).mul_(gates.u)
    dk = (values @ dmemory.mT).mul_(gates.write)
    dv = (keys @ dmemory[..., :-1]).mul_(gates.write).baddbmm_(weights.mT, dout[..., :-1])
    kept = dmemory * gates.decay
    du = (dq * queries).sum(-1)
    du[:, -1] += (kept * memory).sum((-1, -2))
    flow[:, -1] += (dk * keys).sum(-1)
    ones = flow.new_ones(flow.shape[1:])
    di = flow.sum(-2)
    df = (flow @ ones.triu(1)).tril_().sum(-2) + _suffix_sum(du)
    dq.baddbmm_(dscores, keys)
    dk.baddbmm_(dscores.mT, queries)
    before = torch.baddbmm(kept, (queries * gates.u).mT, dout)
    return _Grads(dq * keys.shape[-1] ** -0.5, dk, dv, di, df), before


def _floor(m: Tensor) -> Tensor:
    # The clamp only matters beyond exp's range, where a query of zeros would read 0 / 0.
    return torch.exp(-m).clamp_min(torch.finfo(m.dtype).tiny)


def _suffix_sum(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)


def _spans(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _cut(q: Tensor, k: Tensor, v: Tensor, *, span: slice) -> _Chunk:
    queries = _rows(q[:, span]) * q.shape[-1] ** -0.5
    return _Chunk(queries, _rows(k[:, span]), _with_ones(_rows(v[:, span])))


def _rows(x: Tensor) -> Tensor:
    """Fold heads into the batch: `(B, L, H, ...)` to `(B * H, L, ...)`."""
    return x.transpose(1, 2).flatten(0, 1)


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(*x.shape[:-1], 1)), -1)


def _unrows(x: Tensor, batch: int) -> Tensor:
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


def _join(c: Tensor, n: Tensor) -> Tensor:
    return torch.cat((c, n.unsqueeze(-1)), -1).flatten(0, 1)


def _split(memory: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    memory = memory.unflatten(0, (batch, -1))
    parts = (memory[..., :-1], memory[..., -1])
    c, n = (part.clone(memory_format=torch.contiguous_format) for part in parts)
    return c, n
