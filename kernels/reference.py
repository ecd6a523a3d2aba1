"""Both cells, one equation per line: the truth that every fast path is measured against.

Written for reading, and for float64: a loop over time, no clever form, gradients by autograd.
Equation numbers are those of Beck et al. (2024), "xLSTM: Extended Long Short-Term Memory",
arXiv:2405.04517. Gates come as pre-activations, the input gate is exponential, the forget gate
a sigmoid. Output gate and normalisation of the mLSTM belong to the layer above.

The stabiliser `m` is detached: the output does not depend on it, so holding it fixed gives the
exact gradient. A given `m` acts as the scale of the given memory and does receive a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xlstm_ts.kernels.states import (
    MLSTMState,
    SLSTMState,
    mlstm_initial_state,
    slstm_initial_state,
)


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """Run the mLSTM over a sequence, step by step (equations 19 to 27).

    Parameters
    ----------
    q, k
        Queries and keys, `(B, T, H, K)`.
    v
        Values, `(B, T, H, V)`.
    i, f
        Pre-activations of the input and forget gate, `(B, T, H)`.
    state
        Memory before the first step; empty by default.
    mask
        `(B, T)`, true where a step is present; all are by default.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, V)`.
    state : MLSTMState
        Memory after the last step.
    """
    B, T, H, K = q.shape
    if state is None:
        state = mlstm_initial_state(B, H, K, v.shape[-1], dtype=q.dtype, device=q.device)
    present = torch.ones(B, T, dtype=torch.bool, device=q.device) if mask is None else mask
    outputs = []
    for t in range(T):
        h, state = _mlstm_step(
            q[:, t], k[:, t], v[:, t], i[:, t], f[:, t], state=state, present=present[:, t]
        )
        outputs.append(h)
    return torch.stack(outputs, 1), state


def _mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    state: MLSTMState,
    present: Tensor,
) -> tuple[Tensor, MLSTMState]:
    c, n, m = state
    gate, vector = present[:, None], present[:, None, None]
    # An absent step keeps everything: log f = 0 and i = exp(-inf) = 0.
    log_f = torch.where(gate, logsigmoid(torch.where(gate, f, 0)), 0)
    log_i = torch.where(gate, i, -torch.inf)
    k, v = torch.where(vector, k, 0), torch.where(vector, v, 0)
    q = torch.where(vector | q.isfinite(), q, 0) * q.shape[-1] ** -0.5

    m_new = torch.maximum(log_f + m, log_i).detach()  # (15)
    i_scaled = torch.exp(log_i - m_new)[..., None]  # (16)
    f_scaled = torch.exp(log_f + m - m_new)[..., None]  # (17)
    c = f_scaled[..., None] * c + i_scaled[..., None] * k[..., :, None] * v[..., None, :]  # (19)
    n = f_scaled * n + i_scaled * k  # (20)
    num = (c * q[..., None]).sum(-2)  # (21), and its denominator
    den = torch.maximum((n * q).sum(-1).abs(), torch.exp(-m_new))
    return num / den[..., None], MLSTMState(c, n, m_new)


def slstm(
    x: Tensor,
    r: Tensor,
    b: Tensor,
    *,
    state: SLSTMState | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, SLSTMState]:
    """Run the sLSTM over a sequence, step by step (equations 8 to 17).

    Parameters
    ----------
    x
        What the input gives to the gates i, f, z, o, `(B, T, 4, H, D)`.
    r
        Recurrent weights, one block per head and gate, `(H, 4, D_out, D_in)`.
    b
        Bias, `(4, H, D)`.
    state
        Memory before the first step; empty by default.
    mask
        `(B, T)`, true where a step is present; all are by default.

    Returns
    -------
    h : Tensor
        Outputs, `(B, T, H, D)`.
    state : SLSTMState
        Memory after the last step.
    """
    B, T, _, H, D = x.shape
    if state is None:
        state = slstm_initial_state(B, H, D, dtype=x.dtype, device=x.device)
    present = torch.ones(B, T, dtype=torch.bool, device=x.device) if mask is None else mask
    outputs = []
    for t in range(T):
        recurrent = torch.einsum("hgoi,bhi->bgho", r, state.h)
        raw = torch.where(present[:, t, None, None, None], x[:, t], 0) + recurrent + b
        state = _slstm_step(raw, state, present=present[:, t, None, None])
        outputs.append(state.h)
    return torch.stack(outputs, 1), state


def _slstm_step(raw: Tensor, state: SLSTMState, *, present: Tensor) -> SLSTMState:
    h, c, n, m = state
    log_i, log_f = raw[:, 0], logsigmoid(raw[:, 1])  # (12), (13)
    z, o = torch.tanh(raw[:, 2]), torch.sigmoid(raw[:, 3])  # (11), (14)
    m_new = torch.maximum(log_f + m, log_i).detach()  # (15)
    i_scaled = torch.exp(log_i - m_new)  # (16)
    f_scaled = torch.exp(log_f + m - m_new)  # (17)
    c_new = f_scaled * c + i_scaled * z  # (8)
    n_new = f_scaled * n + i_scaled  # (9)
    h_new = o * c_new / n_new  # (10)
    return SLSTMState(
        torch.where(present, h_new, h),
        torch.where(present, c_new, c),
        torch.where(present, n_new, n),
        torch.where(present, m_new, m),
    )
