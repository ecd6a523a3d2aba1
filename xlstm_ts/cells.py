"""The two cells of xLSTM with what each needs around its recurrence.

A cell is one step of the textbook plus a fast way to run many: `step` takes one token, `forward`
takes a sequence, both return `(h, state)`, and the two agree to rounding. The state of a cell
starts with the last inputs of its causal convolution, if it has one, followed by the paper's
letters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.kernels.ops import mlstm, mlstm_step, slstm, slstm_step
from xlstm_ts.kernels.states import M_START, MLSTMState, SLSTMState
from xlstm_ts.state import State, StateField

# Forget gates start near one and spread over time constants. Input gates start small: while the
# normaliser sits on its floor, rounding is not blown up by its changes of sign.
FORGET_BIAS = (3.0, 6.0)
INPUT_BIAS = -5.0
# Added to the variance inside a head: a head that says nearly nothing is not blown up to size one,
# and its rounding in float32 with it.
HEAD_EPSILON = 1e-4


class CausalConv(nn.Module):
    """Depthwise convolution over the present token and the `length - 1` before it, then SiLU."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width).uniform_(-1, 1) / length**0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve `x` `(S, N, E)` after `history` `(S, length - 1, E)`; return the new history."""
        length, past = self.weight.shape[0], torch.cat((history, x), 1)
        taps = (past[:, j : j + x.shape[1]] * self.weight[j] for j in range(length))
        return F.silu(sum(taps, start=self.bias)), past[:, x.shape[1] :]

    def step(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve one token `x` `(S, E)`."""
        past = torch.cat((history, x.unsqueeze(1)), 1)
        return F.silu((past * self.weight).sum(1) + self.bias), past[:, 1:]


class _Cell(nn.Module):
    """What both cells begin with: a causal convolution, or none where `conv_length` is 0."""

    def __init__(self, width: int, heads: int, conv_length: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.conv = CausalConv(width, conv_length) if conv_length else None

    def _conv_fields(self) -> tuple[StateField, ...]:
        if self.conv is None:
            return ()
        length, width = self.conv.weight.shape
        return (StateField("conv", (length - 1, width)),)

    def _mix(
        self, x: Tensor, state: State, mask: Tensor, *, is_step: bool
    ) -> tuple[Tensor, State, State]:
        """Return convolved tokens, the new inputs of the convolution, and the rest of the state."""
        if self.conv is None:
            return x, (), state
        convolve = self.conv.step if is_step else self.conv
        mixed, history = convolve(x * mask.unsqueeze(-1), state[0])
        return mixed, (history,), state[1:]


class HeadNorm(nn.Module):
    """Layer norm of each head on its own, with one gain per unit."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads * dim))

    def forward(self, h: Tensor) -> Tensor:
        """Normalise `h` `(..., H, D)` over D and join the heads: `(..., H * D)`."""
        normed = F.layer_norm(h, h.shape[-1:], eps=HEAD_EPSILON)
        return normed.flatten(-2) * self.weight


class MLSTMCell(_Cell):
    """Matrix memory: causal convolution, q k v and gates, the mLSTM recurrence, per-head norm.

    Equations 19 to 27 of Beck et al. (2024), https://arxiv.org/abs/2405.04517.
    """

    def __init__(self, width: int, heads: int, conv_length: int) -> None:
        super().__init__(width, heads, conv_length)
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.gates = nn.Linear(3 * width, 2 * heads)
        self.norm = HeadNorm(heads, self.dim)
        nn.init.normal_(self.gates.weight, std=0.01)
        with torch.no_grad():
            self.gates.bias[:heads] = INPUT_BIAS
            self.gates.bias[heads:] = torch.linspace(*FORGET_BIAS, heads)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        heads, dim = self.heads, self.dim
        return (
            *self._conv_fields(),
            StateField("c", (heads, dim, dim)),
            StateField("n", (heads, dim)),
            StateField("m", (heads,), M_START),
        )

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over `x` `(S, N, E)` with `mask` `(S, N)`, true where a token holds a reading."""
        mixed, past, memory = self._mix(x, state, mask, is_step=False)
        h, new = mlstm(*self._inputs(x, mixed), state=MLSTMState(*memory), mask=mask)
        return self.norm(h), (*past, *new)

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)` with `mask` `(S,)`."""
        mixed, past, memory = self._mix(x, state, mask, is_step=True)
        h, new = mlstm_step(*self._inputs(x, mixed), MLSTMState(*memory), mask=mask)
        return self.norm(h), (*past, *new)

    def _inputs(self, x: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        query, key = self.query_key(mixed).chunk(2, -1)
        value = self.value(x)
        i, f = self.gates(torch.cat((query, key, value), -1)).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, self.dim)) for part in (query, key, value))
        return q, k, v, i, f


class SLSTMCell(_Cell):
    """Scalar memory with memory mixing: causal convolution, the sLSTM recurrence, per-head norm.

    Equations 8 to 18 of Beck et al. (2024), https://arxiv.org/abs/2405.04517. Input and forget
    gate see the convolved tokens, cell input and output gate the present one.
    """

    def __init__(self, width: int, heads: int, conv_length: int) -> None:
        super().__init__(width, heads, conv_length)
        self.input_forget = nn.Linear(width, 2 * width, bias=False)
        self.cell_output = nn.Linear(width, 2 * width, bias=False)
        recurrent = torch.empty(heads, 4, self.dim, self.dim).normal_() / self.dim
        self.recurrent = nn.Parameter(recurrent)
        self.bias = nn.Parameter(torch.zeros(4, heads, self.dim))
        self.norm = HeadNorm(heads, self.dim)
        with torch.no_grad():
            self.bias[0] = INPUT_BIAS
            self.bias[1] = torch.linspace(*FORGET_BIAS, self.dim)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        units = (self.heads, self.dim)
        return (
            *self._conv_fields(),
            StateField("h", units),
            StateField("c", units),
            StateField("n", units),
            StateField("m", units, M_START),
        )

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over `x` `(S, N, E)` with `mask` `(S, N)`, true where a token holds a reading."""
        mixed, past, memory = self._mix(x, state, mask, is_step=False)
        gates = self._inputs(x, mixed)
        h, new = slstm(gates, self.recurrent, self.bias, state=SLSTMState(*memory), mask=mask)
        return self.norm(h), (*past, *new)

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)` with `mask` `(S,)`."""
        mixed, past, memory = self._mix(x, state, mask, is_step=True)
        gates = self._inputs(x, mixed)
        h, new = slstm_step(gates, self.recurrent, self.bias, SLSTMState(*memory), mask=mask)
        return self.norm(h), (*past, *new)

    def _inputs(self, x: Tensor, mixed: Tensor) -> Tensor:
        gates = torch.cat((self.input_forget(mixed), self.cell_output(x)), -1)
        return gates.unflatten(-1, (4, self.heads, self.dim))
