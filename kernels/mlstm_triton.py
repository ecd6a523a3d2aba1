"""The mLSTM on a GPU: one launch forward, one for all gradients, and no memory saved in between.

What the kernels compute, and why it is the gradient, stands in `README.md`. Few heads with a long
sequence would leave most of a GPU idle, so that such a sequence is cut into segments that run side
by side: a pass over keys and values finds the memory at each border, and in the backward pass one
over queries and outputs finds its gradient there.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from xlstm_ts.kernels.launch import (
    compiler_options,
    mask_arguments,
    product_options,
    state_arguments,
    strides,
    unit_columns,
)
from xlstm_ts.kernels.mlstm_jit import backward_kernel, forward_kernel, join_kernel
from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.states import M_START, MLSTMState
from xlstm_ts.kernels.tiling import Tiling, padded

# Shorter sequences, or segments, do not pay for the pass that finds the borders.
_LONG, _SHORTEST = 2048, 512
_JOIN_BLOCK = 1024
_BACKWARD_ONLY = {"dh", "dh_b", "dh_t", "dh_h", "h", "d", "mc"}


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState | None,
    mask: Tensor | None,
    tiling: Tiling,
    precision: Precision,
    segments: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run over a sequence.

    Parameters
    ----------
    q, k
        Queries and keys, `(B, T, H, K)`, float32, bfloat16 or float16.
    v
        Values, `(B, T, H, V)`.
    i, f
        Gate pre-activations, `(B, T, H)`.
    state
        Memory before the first step, or none.
    mask
        `(B, T)`, bool, true where a step is present. Elsewhere only a finite query is used.
    tiling
        Sizes of the launch.
    precision
        Of the matrix products.
    segments
        Into how many the sequence is cut; by default as many as the device can use, 1 for none.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, V)`, in the dtype of `v`.
    c, n, m : Tensor
        Memory after the last step, `(B, H, K, V)`, `(B, H, K)` and `(B, H)`, float32.
    d, mc : Tensor
        Raw denominator and scale of each row, `(B, T, H)`, float32, for the backward pass.
    """
    q, k, v = (unit_columns(x) for x in (q, k, v))
    count, span = _cut(segments, v, tiling=tiling)
    grid = _grid(v, tiling=tiling, segments=count)
    h = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    d, mc = _room(v, *v.shape[:3]), _room(v, *v.shape[:3])
    start, final = state, _memory(q, v)
    options = {
        **_inputs(q=q, k=k, v=v, i=i, f=f, mask=mask),
        **_launch(q, v, tiling=tiling, precision=precision),
        "span": span,
    }
    with torch.cuda.device_of(v):
        if count > 1:
            start = _borders(start, options, grid=grid)
        forward_kernel[grid](
            **options,
            **state_arguments("c0 n0 m0", start),
            h=h,
            d=d,
            mc=mc,
            **state_arguments("c n m", final),
            g=None,
        )
    return h, *final, d, mc


def backward(
    dh: Tensor,
    dc: Tensor | None,
    dn: Tensor | None,
    *,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    d: Tensor,
    mc: Tensor,
    state: MLSTMState | None,
    final: MLSTMState | None,
    mask: Tensor | None,
    tiling: Tiling,
    precision: Precision,
    segments: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of a loss of the outputs and of the final memory.

    Parameters
    ----------
    dh
        Gradient of the outputs, `(B, T, H, V)`.
    dc, dn
        Gradients of the final memory, `(B, H, K, V)` and `(B, H, K)`, or none.
    q, k, v, i, f, state, mask
        As given to `forward`.
    h, d, mc, final
        As returned by it; `final` is only needed with `dc` or `dn`.
    tiling, precision, segments
        As for `forward`, and free to differ.

    Returns
    -------
    dq, dk, dv, di, df : Tensor
        Like the inputs.
    dc0, dn0, dm0 : Tensor or None
        Like the initial memory, float32; none without one.
    """
    q, k, v, dh = (unit_columns(x) for x in (q, k, v, dh))
    count, span = _cut(segments, v, tiling=tiling)
    heads, blocks, _ = grid = _grid(v, tiling=tiling, segments=count)
    dq, dk, di, df = (_shares(x, blocks) for x in (q, k, i, f))
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    start, end, dstart = state, final, _memory(q, v)
    dm = _shares(dstart.m, blocks)
    dc, dn = _last_gradient(dc, dn, dstart)
    options = {
        **_inputs(q=q, k=k, v=v, i=i, f=f, dh=dh, mask=mask),
        **_launch(q, v, tiling=tiling, precision=precision),
        "h": h.contiguous(),
        "d": d.contiguous(),
        "mc": mc.contiguous(),
        "span": span,
    }
    with torch.cuda.device_of(v):
        if count > 1:
            start = _borders(start, options, grid=grid)
            dc, dn = _border_gradients(start, end, (dc, dn), options, grid=grid)
            end = MLSTMState(*(part[1:] for part in start))
        backward_kernel[(2 * heads, blocks, count)](
            **options,
            **state_arguments("c0 n0 m0", start),
            **state_arguments("c1 n1 m1", end),
            dc1=dc,
            dn1=dn,
            dq=dq,
            dk=dk,
            dv=dv,
            di=di,
            df=df,
            **state_arguments("dc0 dn0 dm0", None if state is None else dstart._replace(m=dm)),
            g=None,
        )
    inputs = (_total(dq, q), _total(dk, k), dv, _total(di, i), _total(df, f))
    if state is None:
        return *inputs, None, None, None
    return *inputs, dstart.c, dstart.n, _total(dm, dstart.m)


def _borders(
    start: MLSTMState | None, options: dict[str, Any], *, grid: tuple[int, int, int]
) -> MLSTMState:
    """Return the memory at the borders of S segments, `(S + 1, B, H, ...)`, the last left open."""
    heads, blocks, count = grid
    borders = _memory(options["q"], options["v"], count + 1)
    own, g = torch.empty_like(borders.m), torch.empty_like(borders.m)
    for part, empty in zip(borders, (0.0, 0.0, M_START), strict=True):
        part[0] = empty
    if start is not None:
        _put(borders, 0, start)
    own[0] = borders.m[0]
    forward_kernel[(heads, blocks, count - 1)](
        **{name: x for name, x in options.items() if name not in _BACKWARD_ONLY},
        **state_arguments("c0 n0 m0", None),
        h=None,
        d=None,
        mc=None,
        c=borders.c[1:],
        n=borders.n[1:],
        m=own[1:],
        g=g,
    )
    for part in borders[:2]:
        _join(part, own, g, borders.m, reverse=False)
    return borders


def _border_gradients(
    borders: MLSTMState,
    end: MLSTMState | None,
    dlast: tuple[Tensor | None, Tensor | None],
    options: dict[str, Any],
    *,
    grid: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the memory after each segment, and put the end into `borders`."""
    heads, blocks, count = grid
    if end is None:  # then its gradient is zero, and any memory will do
        end = MLSTMState(borders.c[0], borders.n[0], options["mc"][:, -1])
    _put(borders, count, end)
    dc, dn = torch.empty_like(borders.c), torch.empty_like(borders.n)
    g = torch.empty_like(borders.m)
    backward_kernel[(heads, blocks, count)](
        **options,
        **state_arguments("c0 n0 m0", borders),
        c1=None,
        n1=None,
        m1=borders.m[1:],
        dc1=None,
        dn1=None,
        dq=None,
        dk=None,
        dv=None,
        di=None,
        df=None,
        dc0=dc,
        dn0=dn,
        dm0=None,
        g=g,
    )
    for part, x in zip((dc, dn), dlast, strict=True):
        part[count] = 0.0 if x is None else x
        _join(part, borders.m, g, borders.m, reverse=True)
    return dc[1:], dn[1:]


def _put(borders: MLSTMState, place: int, state: MLSTMState) -> None:
    for part, x in zip(borders, state, strict=True):
        part[place] = x


def _join(x: Tensor, m: Tensor, g: Tensor, m_out: Tensor, *, reverse: bool) -> None:
    rows, size = m[0].numel(), x[0].numel() // m[0].numel()
    join_kernel[(rows, triton.cdiv(size, _JOIN_BLOCK))](
        x=x,
        m=m,
        g=g,
        m_out=m_out,
        rows=rows,
        count=m.shape[0] - 1,
        SIZE=size,
        REVERSE=reverse,
        BLOCK=_JOIN_BLOCK,
        **compiler_options(warps=4, stages=1),
    )


def _cut(segments: int | None, v: Tensor, *, tiling: Tiling) -> tuple[int, int]:
    """Return the number of segments and their length, whole chunks but for the last."""
    B, T, H, V = v.shape
    if segments is None:
        segments = 1
        if v.is_cuda and T > _LONG:
            # Two programs for each multiprocessor keep it busy while one of them waits.
            wanted = 2 * torch.cuda.get_device_properties(v.device).multi_processor_count
            programs = B * H * triton.cdiv(V, tiling.value_block)
            segments = max(1, min(wanted // programs, T // _SHORTEST))
    span = triton.cdiv(triton.cdiv(T, segments), tiling.chunk) * tiling.chunk
    return triton.cdiv(T, span), span


def _grid(v: Tensor, *, tiling: Tiling, segments: int) -> tuple[int, int, int]:
    return v.shape[0] * v.shape[2], triton.cdiv(v.shape[3], tiling.value_block), segments


def _inputs(
    *, i: Tensor, f: Tensor, mask: Tensor | None, **vectors: Tensor
) -> dict[str, Tensor | int | None]:
    """Name the tensors of a launch and their strides, those of the vectors in units."""
    gates = {
        f"{name}_{axis}": step
        for name, x in (("i", i), ("f", f))
        for axis, step in zip("bth", x.stride(), strict=True)
    }
    return {**vectors, **strides("bth", **vectors), "i": i, "f": f, **gates, **mask_arguments(mask)}


def _launch(q: Tensor, v: Tensor, *, tiling: Tiling, precision: Precision) -> dict[str, Any]:
    """Name the sizes of a launch and how the compiler shall go about it."""
    K, V = q.shape[-1], v.shape[-1]
    return {
        "T": v.shape[1],
        "H": v.shape[2],
        "K": K,
        "V": V,
        "L": tiling.chunk,
        "BK": padded(K),
        "BV": tiling.value_block,
        **product_options(precision),
        "EXACT": precision == "fp32",
        **compiler_options(warps=tiling.warps, stages=tiling.stages),
    }


def _memory(q: Tensor, v: Tensor, *leading: int) -> MLSTMState:
    """Return room for memories, `(..., B, H, K, V)`, `(..., B, H, K)` and `(..., B, H)`."""
    B, _, H, K = q.shape
    sizes = ((B, H, K, v.shape[-1]), (B, H, K), (B, H))
    return MLSTMState(*(_room(v, *leading, *size) for size in sizes))


def _room(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _shares(x: Tensor, blocks: int) -> Tensor:
    """Return room for a gradient of `x`, or for a float32 share of it for each block."""
    dtype = x.dtype if blocks == 1 else torch.float32
    return torch.empty((blocks, *x.shape), dtype=dtype, device=x.device)


def _total(shares: Tensor, like: Tensor) -> Tensor:
    return shares[0] if len(shares) == 1 else shares.sum(0).to(like.dtype)


def _last_gradient(
    dc: Tensor | None, dn: Tensor | None, like: MLSTMState
) -> tuple[Tensor | None, Tensor | None]:
    if dc is None and dn is None:
        return None, None
    dc = torch.zeros_like(like.c) if dc is None else dc.float().contiguous()
    dn = torch.zeros_like(like.n) if dn is None else dn.float().contiguous()
    return dc, dn
