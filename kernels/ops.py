"""The two cells as functions of tensors: checks, masks, precision and the choice of the path.

Everything above the kernels imports this module and no other. Over a sequence a cell is an opaque
operator (`mlstm_op`, `slstm_op`) on one of two paths (`backends`): plain torch sees tensors of one
dtype and absent steps already written as gates (i = -inf, f = inf), the Triton kernels read any
dtype and the mask. While a graph is exported, plain torch is taken apart instead, on any device.

Gates are pre-activations: the input gate is exponential, the forget gate a sigmoid. Beck et al.
(2024), "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, equations 8 to 27.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from xlstm_ts.kernels import mlstm_op, mlstm_torch, slstm_op, slstm_torch
from xlstm_ts.kernels.backends import Backend, is_exporting, slstm_fits, use_triton
from xlstm_ts.kernels.checks import (
    check_choice,
    check_kernels,
    check_mlstm,
    check_slstm,
)
from xlstm_ts.kernels.precision import Precision, compute_dtype, full_precision, matmul_precision
from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling, Tiling

Form = Literal["auto", "parallel", "chunkwise"]


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState | None = None,
    mask: Tensor | None = None,
    form: Form = "auto",
    chunk_size: int | None = None,
    backend: Backend = "auto",
    precision: Precision | None = None,
    segments: int | None = None,
    tiling: tuple[Tiling, Tiling] | None = None,
) -> tuple[Tensor, MLSTMState]:
    """Run the mLSTM over a sequence (equations 19 to 27, without output gate and norm).

    Queries are scaled by `K**-0.5`; keys enter the memory unscaled. Computed in float32, or in
    float64 if any tensor is float64, under autocast too.

    Parameters
    ----------
    q, k
        Queries and keys, `(B, T, H, K)`, float16, bfloat16, float32 or float64 like all others.
    v
        Values, `(B, T, H, V)`.
    i, f
        Pre-activations of input and forget gate, `(B, T, H)`.
    state
        Memory before the first step; empty by default. Its `m` is a scale and takes a gradient.
    mask
        `(B, T)`, bool, true where a step is present. An absent step leaves the memory alone and
        its output reads that memory; what stands in its tensors is never used, but for a
        finite query.
    form
        Of the torch path: `"chunkwise"` costs T, `"parallel"` is one chunk and costs T**3, little
        where T is little; `"auto"` takes the faster one.
    chunk_size
        Steps per chunk of the chunkwise form; by default 32, or 16 for heads up to 16 wide. Not
        with `form="parallel"`.
    backend
        `"triton"` takes the GPU kernels, `"torch"` plain torch, `"auto"` the kernels on a CUDA
        device where they can run.
    precision
        Of the matrix products of the kernels: `"fp32"`, `"tf32"` or `"bf16"`; by default what
        `torch.set_float32_matmul_precision` says. Sums and memories are float32 in all three.
    segments
        Into how many pieces the kernels cut a long sequence to fill a device; by default as many as
        it needs.
    tiling
        Block sizes of the forward and the backward kernel, in place of those of the table.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, V)`, in the dtype of `v`.
    state : MLSTMState
        Memory after the last step, float32 or float64; see the notes for its gradients.

    Raises
    ------
    ValueError
        If a shape, a dtype, a device or an option does not fit.
    BackendError
        If `backend="triton"` cannot run; it says why.
    NotImplementedError
        In forward mode, and where a gradient is differentiated again.

    Notes
    -----
    Differentiable once, in reverse mode, by autograd or by `torch.func`. Within `torch.compile`,
    autograd alone. For forward mode and further derivatives, call `mlstm_step` in a loop.

    The last `m` carries no gradient, and those of the last `c` and `n` are taken at fixed `m`: they
    are exact for what depends on the memory itself, `exp(m) * c` and `exp(m) * n`, as the next cell
    does, and not for `c` or `n` alone.

    `torch.export` unrolls the sequence, so that T is a constant of the graph and must not be
    dynamic; export `mlstm_step` for sequences of any length.
    """
    check_choice(form, chunk_size, segments)
    precision = precision or matmul_precision()
    check_kernels(precision, tiling, kinds=(Tiling, Tiling))
    check_mlstm(q, k, v, i, f, state=state, mask=mask, sequence=True)
    dtype = compute_dtype(q, k, v, i, f, *(state or ()))
    if state is not None:
        state = MLSTMState(*(part.to(dtype) for part in state))
    head, given = max(q.shape[-1], v.shape[-1]), v.dtype
    with full_precision(q):
        exporting = is_exporting()
        if not exporting and use_triton(backend, q, dtype=dtype, head=head):
            sizes = None if tiling is None else (*tiling[0], *tiling[1])
            plan = mlstm_op.Plan(0, precision, segments, sizes)
            return mlstm_op.run(q, k, v, i, f, state=state, mask=mask, plan=plan)
        inputs = _present(*(x.to(dtype) for x in (q, k, v, i, f)), mask=mask)
        size = _chunk_size(q.shape[1], head, form=form, chunk_size=chunk_size)
        if exporting:
            # A graph for inference: what trains cannot be written into memory of its own.
            q, k, v, i, f = (part.detach() for part in inputs)
            start = mlstm_op.start(state, q, v).detach()
            final, saved = mlstm_torch.forward(q, k, v, i, f, state=start, chunk_size=size)
            return saved.h.to(given), final
        h, state = mlstm_op.run(*inputs, state=state, mask=None, plan=mlstm_op.Plan(size))
    return h.to(given), state


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """Advance the mLSTM by one step; `mlstm` over T steps is T of these.

    Parameters
    ----------
    q, k
        Query and key, `(B, H, K)`.
    v
        Value, `(B, H, V)`.
    i, f
        Gate pre-activations, `(B, H)`.
    state
        Memory before the step; empty by default.
    mask
        `(B,)`, bool, true where the step is present.

    Returns
    -------
    h : Tensor
        Output, `(B, H, V)`, in the dtype of `v`.
    state : MLSTMState
        Memory after the step, float32 or float64. Gradients of `c` and `n` are taken at fixed `m`.

    Raises
    ------
    ValueError
        If a shape, a dtype or a device does not fit.
    """
    check_mlstm(q, k, v, i, f, state=state, mask=mask, sequence=False)
    dtype = compute_dtype(q, k, v, i, f, *(state or ()))
    if state is not None:
        state = MLSTMState(*(part.to(dtype) for part in state))
    with full_precision(q):
        inputs = _present(*(x.to(dtype) for x in (q, k, v, i, f)), mask=mask)
        start = mlstm_op.start(state, inputs[0], inputs[2])
        h, state = mlstm_torch.step(*inputs, state=start)
    return h.to(v.dtype), state


def slstm(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    *,
    state: SLSTMState | None = None,
    mask: Tensor | None = None,
    backend: Backend = "auto",
    precision: Precision | None = None,
    tiling: ScanTiling | None = None,
) -> tuple[Tensor, SLSTMState]:
    """Run the sLSTM over a sequence (equations 8 to 17, without the norm).

    Parameters
    ----------
    x
        What the input gives to the gates i, f, z, o, in this order, `(B, T, 4, H, D)`.
    r
        Recurrent weights, one block per head and gate, `(H, 4, D_out, D_in)`.
    b
        Bias, `(4, H, D)`.
    state
        Memory before the first step; empty by default. Its `m` is a scale and takes a gradient.
    mask
        `(B, T)`, bool, true where a step is present. An absent step leaves everything alone, its
        output is the last `h`, and what stands in `x` there is never used.
    backend, precision, tiling
        As for `mlstm`. Where the recurrent weights of a head do not fit on the device, `"auto"`
        takes plain torch and warns once.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, D)`, in the dtype of `x`.
    state : SLSTMState
        Memory after the last step, float32 or float64; see the notes for its gradients.

    Raises
    ------
    ValueError
        If a shape, a dtype, a device or an option does not fit.
    BackendError
        If `backend="triton"` cannot run; it says why.
    NotImplementedError
        In forward mode, and where a gradient is differentiated again.

    Notes
    -----
    As for `mlstm`: differentiable once, in reverse mode; gradients of the last `c` and `n` are
    taken at fixed `m`, so that they are exact for `exp(m) * c`, `exp(m) * n` and `c / n`; and T is
    a constant of an exported graph. `slstm_step` is the way around.
    """
    precision = precision or matmul_precision()
    check_kernels(precision, tiling, kinds=(ScanTiling,))
    check_slstm(x, r, b, state=state, mask=mask, sequence=True)
    dtype = compute_dtype(x, r, b, *(state or ()))
    if state is not None:
        state = SLSTMState(*(part.to(dtype) for part in state))
    head = x.shape[-1]
    with full_precision(x):
        exporting = is_exporting()
        if (
            not exporting
            and use_triton(backend, x, dtype=dtype, head=head)
            and slstm_fits(backend, x, head=head, precision=precision)
        ):
            plan = slstm_op.Plan(True, precision, tiling)
            return slstm_op.run(x, r, b, state=state, mask=mask, plan=plan)
        gates, r, b = _present_gates(x.to(dtype), mask=mask), r.to(dtype), b.to(dtype)
        if exporting:
            gates, r, b = gates.detach(), r.detach(), b.detach()
            start = slstm_op.start(state, gates).detach()
            final, saved = slstm_torch.forward(gates, r, b, state=start, mask=mask)
            return saved.h.to(x.dtype), final
        h, state = slstm_op.run(gates, r, b, state=state, mask=mask, plan=slstm_op.Plan(False))
    return h.to(x.dtype), state


def slstm_step(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    state: SLSTMState | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, SLSTMState]:
    """Advance the sLSTM by one step; `slstm` over T steps is T of these.

    Parameters
    ----------
    x
        What the input gives to the gates i, f, z, o, `(B, 4, H, D)`.
    r
        Recurrent weights, `(H, 4, D_out, D_in)`.
    b
        Bias, `(4, H, D)`.
    state
        Memory before the step; empty by default.
    mask
        `(B,)`, bool, true where the step is present.

    Returns
    -------
    h : Tensor
        Output, `(B, H, D)`, in the dtype of `x`.
    state : SLSTMState
        Memory after the step, float32 or float64. Gradients of `c` and `n` are taken at fixed `m`.

    Raises
    ------
    ValueError
        If a shape, a dtype or a device does not fit.
    """
    check_slstm(x, r, b, state=state, mask=mask, sequence=False)
    dtype = compute_dtype(x, r, b, *(state or ()))
    if state is not None:
        state = SLSTMState(*(part.to(dtype) for part in state))
    with full_precision(x):
        gates = _present_gates(x.to(dtype), mask=mask)
        start = slstm_op.start(state, gates)
        state = slstm_torch.step(gates, r.to(dtype), b.to(dtype), state=start, mask=mask)
    return state.h.to(x.dtype), state


def _chunk_size(length: int, head: int, *, form: Form, chunk_size: int | None) -> int:
    if form == "auto":
        form = "parallel" if length <= 1.5 * head else "chunkwise"
    return length if form == "parallel" else chunk_size or (16 if head <= 16 else 32)


def _present(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Write absent steps as gates: i = -inf, f = inf, and nothing to add."""
    if mask is None:
        return q, k, v, i, f
    gate = ~mask.unsqueeze(-1)
    vector = gate.unsqueeze(-1)
    return (
        q.masked_fill(vector & ~q.isfinite(), 0),
        k.masked_fill(vector, 0),
        v.masked_fill(vector, 0),
        i.masked_fill(gate, -torch.inf),
        f.masked_fill(gate, torch.inf),
    )


def _present_gates(x: Tensor, *, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x
    absent = x.new_tensor((-torch.inf, torch.inf, 0, 0))[:, None, None]
    return torch.where(mask[..., None, None, None], x, absent)
