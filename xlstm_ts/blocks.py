"""Residual blocks: norm, cell, gate, projection. The residual stream is two lines of each."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.cells import MLSTMCell, SLSTMCell
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.state import State, StateField

# Width of the feed-forward part of an sLSTM block, in units of the stream (the paper's 4/3).
FEED_FORWARD = 4 / 3


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, bias=False)


class MLSTMBlock(nn.Module):
    """Up-projection, mLSTM cell, output gate, down-projection (figure 11 of the xLSTM paper)."""

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        inner = config.expansion * config.d_model
        self.norm = _norm(config.d_model)
        self.up = nn.Linear(config.d_model, 2 * inner, bias=False)
        self.cell = MLSTMCell(inner, config.n_heads, config.conv_length)
        self.down = nn.Linear(inner, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        return self.cell.state_fields()

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over tokens `x` `(S, N, E)`."""
        inner, gate = self.up(self.norm(x)).chunk(2, -1)
        h, state = self.cell(inner, state, mask)
        return x + self._out(h, gate), state

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)`."""
        inner, gate = self.up(self.norm(x)).chunk(2, -1)
        h, state = self.cell.step(inner, state, mask)
        return x + self._out(h, gate), state

    def _out(self, h: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.down(h * gate.sigmoid()))
        return out


class SLSTMBlock(nn.Module):
    """sLSTM cell, then a gated feed-forward part (figure 10 of the xLSTM paper)."""

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        width = config.d_model
        hidden = 8 * math.ceil(FEED_FORWARD * width / 8)
        self.norm = _norm(width)
        self.cell = SLSTMCell(width, config.n_heads, config.conv_length)
        self.feed_norm = _norm(width)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        return self.cell.state_fields()

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over tokens `x` `(S, N, E)`."""
        h, state = self.cell(self.norm(x), state, mask)
        return self._feed(x + self.dropout(h)), state

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)`."""
        h, state = self.cell.step(self.norm(x), state, mask)
        return self._feed(x + self.dropout(h)), state

    def _feed(self, x: Tensor) -> Tensor:
        gate, value = self.up(self.feed_norm(x)).chunk(2, -1)
        out: Tensor = x + self.dropout(self.down(F.silu(gate) * value))
        return out


Block = MLSTMBlock | SLSTMBlock


def build_block(letter: str, config: XLSTMConfig) -> Block:
    """Return the block that a letter of `XLSTMConfig.blocks` stands for."""
    return MLSTMBlock(config) if letter == "m" else SLSTMBlock(config)
