"""The mLSTM as an opaque operator of torch, `xlstm_ts::mlstm`, with its gradient.

Opaque, so that `torch.compile` takes it as it is, for any length; what it computes is the same on
either path. It sees checked tensors. On the torch path these share one dtype and absent steps are
already written as gates; the kernels read any dtype and the mask. A missing state is an empty one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from xlstm_ts.kernels import mlstm_torch
from xlstm_ts.kernels.autograd import differentiable
from xlstm_ts.kernels.precision import Precision, full_precision
from xlstm_ts.kernels.states import MLSTMState, mlstm_initial_state
from xlstm_ts.kernels.tiling import Tiling, mlstm_tiling


class Plan(NamedTuple):
    """How a call is computed: by torch in chunks, or by the kernels.

    Attributes
    ----------
    chunk_size
        Steps per chunk in torch; 0 leaves the work to the kernels.
    precision
        Of the products of the kernels.
    segments
        Into how many they cut the sequence; by default as the device needs.
    tiling
        Tilings of the two kernels, forward and backward, one after the other; by default those of
        the table.
    """

    chunk_size: int
    precision: Precision = "fp32"
    segments: int | None = None
    tiling: tuple[int, ...] | None = None


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState | None,
    mask: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, MLSTMState]:
    """Return outputs `(B, T, H, V)` and the last memory, whose m carries no gradient."""
    parts = (None, None, None) if state is None else state
    h, c, n, m, *_ = _call(q, k, v, i, f, *parts, mask, *plan)
    return h, MLSTMState(c, n, m.detach())


@torch.library.custom_op("xlstm_ts::mlstm", mutates_args=())
def _mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    c0: Tensor | None,
    n0: Tensor | None,
    m0: Tensor | None,
    mask: Tensor | None,
    chunk_size: int,
    precision: str,
    segments: int | None,
    tiling: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return h, c, n, m and what the backward pass needs: d, scales of rows or chunks, memories."""
    state = _state(c0, n0, m0)
    if chunk_size:
        state = start(state, q, v)
        final, saved = mlstm_torch.forward(q, k, v, i, f, state=state, chunk_size=chunk_size)
        return saved.h, *final, saved.d, saved.stabilisers, saved.memories
    from xlstm_ts.kernels import mlstm_triton

    outputs = mlstm_triton.forward(
        q,
        k,
        v,
        i,
        f,
        state=state,
        mask=mask,
        tiling=_tiling(q, v, precision, tiling, backward=False),
        precision=precision,  # type: ignore[arg-type]
        segments=segments,
    )
    return *outputs, q.new_empty(0)


@_mlstm.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, _, v, *_, chunk_size, _, _, _ = inputs
    (B, T, H, K), V = q.shape, v.shape[-1]
    room = v.new_empty(0, dtype=v.dtype if chunk_size else torch.float32).new_empty
    final = room(B, H, K, V), room(B, H, K), room(B, H)
    if not chunk_size:
        return v.new_empty(v.shape), *final, room(B, T, H), room(B, T, H), q.new_empty(0)
    borders = (T + chunk_size - 1) // chunk_size + 1
    saved = room(B * H, T), room(borders, B * H, 1), room(borders, B * H, K, V + 1)
    return torch.empty_like(v), *final, *saved


@torch.library.custom_op("xlstm_ts::mlstm_backward", mutates_args=())
def _mlstm_backward(
    dh: Tensor,
    dc: Tensor | None,
    dn: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    c0: Tensor | None,
    n0: Tensor | None,
    m0: Tensor | None,
    mask: Tensor | None,
    h: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    d: Tensor,
    scales: Tensor,
    memories: Tensor,
    chunk_size: int,
    precision: str,
    segments: int | None,
    tiling: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, i, f, c0, n0, m0; the last three always, for one schema."""
    if chunk_size:
        saved = mlstm_torch.Saved(h, d, memories, scales)
        dc = torch.zeros_like(c) if dc is None else dc
        dn = torch.zeros_like(n) if dn is None else dn
        options = {"saved": saved, "chunk_size": chunk_size}
        *inputs, dstate = mlstm_torch.backward(dh, dc, dn, q=q, k=k, v=v, i=i, f=f, **options)  # type: ignore[arg-type]
        return *inputs, *dstate  # type: ignore[return-value]
    from xlstm_ts.kernels import mlstm_triton

    *inputs, dc0, dn0, dm0 = mlstm_triton.backward(
        dh,
        dc,
        dn,
        q=q,
        k=k,
        v=v,
        i=i,
        f=f,
        h=h,
        d=d,
        mc=scales,
        state=_state(c0, n0, m0),
        final=MLSTMState(c, n, m),
        mask=mask,
        tiling=_tiling(q, v, precision, tiling, backward=True),
        precision=precision,  # type: ignore[arg-type]
        segments=segments,
    )
    return *inputs, *(_or_nothing(part, like=c) for part in (dc0, dn0, dm0))  # type: ignore[return-value]


@_mlstm_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, k, v, i, f, c0, *_ = inputs[3:]
    c, n, m = inputs[13:16]
    chunk_size = inputs[-4]
    vectors = (torch.empty_like(x) if chunk_size else x.new_empty(x.shape) for x in (q, k, v))
    gates = (x.new_empty(x.shape) for x in (i, f))
    start = c0 is not None or chunk_size
    first = (x.new_empty(x.shape if start else 0) for x in (c, n, m))
    return *vectors, *gates, *first


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, chunk_size, precision, segments, tiling = inputs
    ctx.plan = (chunk_size, precision, segments, tiling)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    dh, dc, dn, *_ = upstream
    tensors = ctx.saved_tensors
    h, start = tensors[9], tensors[5]
    dh = torch.zeros_like(h) if dh is None else dh
    with full_precision(h):
        grads = _call_backward(dh, dc, dn, *tensors, *ctx.plan)
    first = (None, None, None) if start is None else grads[5:]
    return *grads[:5], *first, None, None, None, None, None


_call = differentiable(_mlstm, _backward, _setup)
_call_backward = differentiable(_mlstm_backward)


def _state(c: Tensor | None, n: Tensor | None, m: Tensor | None) -> MLSTMState | None:
    return None if c is None or n is None or m is None else MLSTMState(c, n, m)


def start(state: MLSTMState | None, q: Tensor, v: Tensor) -> MLSTMState:
    """Return the memory before the first step, an empty one where there is none."""
    if state is not None:
        return state
    B, *_, H, K = q.shape
    return mlstm_initial_state(B, H, K, v.shape[-1], dtype=q.dtype, device=q.device)


def _tiling(
    q: Tensor, v: Tensor, precision: str, tiling: list[int] | None, *, backward: bool
) -> Tiling:
    if tiling is not None:
        fields = len(Tiling._fields)
        return Tiling(*(tiling[fields:] if backward else tiling[:fields]))
    return mlstm_tiling(q.shape[-1], v.shape[-1], precision, backward=backward)  # type: ignore[arg-type]


def _or_nothing(x: Tensor | None, *, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x
