"""Other backbones in place of the xLSTM: the rest of the estimator does not know the difference.

LSTM, GRU and a causal Transformer stand in the block of an sLSTM, each in place of its cell: norm,
cell, norm, gated feed-forward part, which is the block of a Transformer. Mamba brings a block of
its own. All take every token as one that holds a reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from xlstm_ts.blocks import MLSTMBlock, SLSTMBlock, build_block
from xlstm_ts.cells import CausalConv
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.state import State, StateField

WIDTH = 64  # of "mm"
TAPS = 4  # of the convolution of Mamba, which always has one
LONGEST = 10_000.0  # of the wavelengths of the rotary embedding, over 2 pi


class Recurrent(nn.Module):
    """An LSTM or a GRU of torch."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], width: int) -> None:
        super().__init__()
        self.rnn = kind(width, width, batch_first=True)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        names = "hc" if isinstance(self.rnn, nn.LSTM) else "h"
        return tuple(StateField(name, (self.rnn.hidden_size,)) for name in names)

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over `x` `(S, N, E)`."""
        past = tuple(part.unsqueeze(0).contiguous() for part in state)
        h, last = self.rnn(x, past if len(past) > 1 else past[0])
        return h, tuple(part[0] for part in (last if len(past) > 1 else (last,)))

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)`."""
        h, state = self.forward(x.unsqueeze(1), state, mask)
        return h[:, 0], state


class Attention(nn.Module):
    """Causal attention with rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864).

    `forward` starts at the first token. What `step` looks back on is in the cache that it is given.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return none: a cache grows, see `cache`."""
        return ()

    def cache(self, batch: int, length: int) -> State:
        """Return keys and values of `length` random tokens, room for one more, and the length."""
        width = self.out.in_features
        shape = (batch, self.heads, length + 1, width // self.heads)
        return torch.randn(shape), torch.randn(shape), torch.tensor(length)

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over `x` `(S, N, E)`."""
        query, key, value = self._inputs(x, torch.arange(x.shape[1], device=x.device))
        h = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self._out(h), ()

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)`; the cache is written in place."""
        keys, values, length = state
        now = int(length)
        query, key, value = self._inputs(x.unsqueeze(1), length.unsqueeze(0))
        keys[:, :, now], values[:, :, now] = key[:, :, 0], value[:, :, 0]
        known = slice(now + 1)
        h = F.scaled_dot_product_attention(query, keys[:, :, known], values[:, :, known])
        return self._out(h)[:, 0], (keys, values, length + 1)

    def _inputs(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.query_key_value(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return _rotated(query, position), _rotated(key, position), value

    def _out(self, h: Tensor) -> Tensor:
        out: Tensor = self.out(h.transpose(1, 2).flatten(2))
        return out


def _rotated(x: Tensor, position: Tensor) -> Tensor:
    """Turn pairs of `x` `(S, heads, N, D)` by their position `(N,)`; of an odd D one stays."""
    half = x.shape[-1] // 2
    angle = position[:, None] / LONGEST ** (torch.arange(half, device=x.device) / half)
    cos, sin = angle.cos(), angle.sin()
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), -1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos, rest), -1)


class MambaBlock(nn.Module):
    """Mamba (Gu & Dao 2023, https://arxiv.org/abs/2312.00752, figure 3 and algorithm 2)."""

    def __init__(self, config: XLSTMConfig, *, expansion: int = 2, states: int = 16) -> None:
        super().__init__()
        width, inner = config.d_model, expansion * config.d_model
        self.states, self.rank = states, math.ceil(width / 16)
        self.norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.conv = CausalConv(inner, TAPS)
        self.select = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.delta = nn.Linear(self.rank, inner)
        self.log_decay = nn.Parameter(torch.arange(1.0, states + 1).log()[:, None].repeat(1, inner))
        self.skip = nn.Parameter(torch.ones(inner))
        self.down = nn.Linear(inner, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.delta.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():  # step sizes from 0.001 to 0.1, evenly in their logarithm
            size = torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.delta.bias.copy_(size + (-torch.expm1(-size)).log())

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        inner = len(self.skip)
        return (
            StateField("conv", (TAPS - 1, inner)),
            StateField("h", (self.states, inner)),
        )

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over tokens `x` `(S, N, E)`."""
        inner, gate = self.up(self.norm(x)).chunk(2, -1)
        history, memory = state
        inner, history = self.conv(inner, history)
        out, memory = self._scan(inner, memory)
        return x + self._out(out, gate), (history, memory)

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Take one token `x` `(S, E)`."""
        inner, gate = self.up(self.norm(x)).chunk(2, -1)
        inner, history = self.conv.step(inner, state[0])
        out, memory = self._scan(inner.unsqueeze(1), state[1])
        return x + self._out(out[:, 0], gate), (history, memory)

    def _scan(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Run the selective scan over `x` `(S, N, I)` from `memory` `(S, states, I)`."""
        size, write, read = self.select(x).split((self.rank, self.states, self.states), -1)
        size = F.softplus(self.delta(size)).unsqueeze(2)
        decay = torch.exp(-size * self.log_decay.exp())
        h = LinearScan.apply(decay, write.unsqueeze(3) * (size * x.unsqueeze(2)), memory)
        return torch.einsum("snki,snk->sni", h, read) + self.skip * x, h[:, -1]

    def _out(self, h: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.down(h * F.silu(gate)))
        return out


class LinearScan(torch.autograd.Function):
    """h after each token of h = decay * h + new, all `(S, N, ...)`, from h `(S, ...)`.

    One pass over the tokens each way: autograd through a loop would keep, and add, far more.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, decay: Tensor, new: Tensor, start: Tensor) -> Tensor:
        """Run over the tokens."""
        h, last = torch.empty_like(new), start
        for t in range(new.shape[1]):
            last = torch.addcmul(new[:, t], decay[:, t], last, out=h[:, t])
        ctx.save_for_backward(decay, h, start)
        return h

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run back over them."""
        decay, h, start = ctx.saved_tensors
        to_new = torch.empty_like(h)
        to_new[:, -1] = grad[:, -1]
        for t in range(h.shape[1] - 2, -1, -1):
            torch.addcmul(grad[:, t], decay[:, t + 1], to_new[:, t + 1], out=to_new[:, t])
        before = torch.cat((start.unsqueeze(1), h[:, :-1]), 1)
        return to_new * before, to_new, decay[:, 0] * to_new[:, 0]


AnyBlock = MLSTMBlock | SLSTMBlock | MambaBlock
Build = Callable[[str, XLSTMConfig], AnyBlock]


class Backbone(NamedTuple):
    """A stack of blocks: `letters` names them, `build` makes the block of a letter."""

    letters: str
    build: Build

    def blocks(self, config: XLSTMConfig) -> nn.ModuleList:
        """Return the blocks."""
        return nn.ModuleList(self.build(letter, config) for letter in self.letters)


def _around(cell: Callable[[XLSTMConfig], nn.Module]) -> Build:
    """Build the block of an sLSTM around another cell."""

    def build(_: str, config: XLSTMConfig) -> SLSTMBlock:
        block = SLSTMBlock(config)
        block.cell = cell(config)
        return block

    return build


# Those of two letters but "mm", "ms" and "ss" are not looked at letter by letter.
BACKBONES = {
    "mm": Backbone("mm", build_block),
    "ms": Backbone("ms", build_block),
    "ss": Backbone("ss", build_block),
    "LSTM": Backbone("ss", _around(lambda config: Recurrent(nn.LSTM, config.d_model))),
    "GRU": Backbone("ss", _around(lambda config: Recurrent(nn.GRU, config.d_model))),
    "Transformer": Backbone(
        "ss", _around(lambda config: Attention(config.d_model, config.n_heads))
    ),
    "Mamba": Backbone("mm", lambda _, config: MambaBlock(config)),
}


STREAMED = [name for name, one in BACKBONES.items() if one.build is build_block]


@contextmanager
def stack(name: str) -> Iterator[dict[str, Any]]:
    """Build the blocks of a backbone wherever a model is built; "" has none.

    Yields the arguments of an estimator that has as many parameters in them as one of "mm".
    """
    backbone = BACKBONES.get(name, Backbone("", build_block))
    width = width_like(name, width=WIDTH) if name else WIDTH
    with mock.patch("xlstm_ts.model.build_block", backbone.build):
        yield {"blocks": backbone.letters, "d_model": width}


def width_like(name: str, *, width: int) -> int:
    """Return the width at which a backbone has as many parameters as "mm" at `width`."""
    wanted = _parameters("mm", width)
    return min(range(8, 4 * width, 4), key=lambda w: abs(_parameters(name, w) - wanted))


def _parameters(name: str, width: int) -> int:
    blocks = BACKBONES[name].blocks(XLSTMConfig(n_channels=1, horizon=1, d_model=width))
    return sum(weight.numel() for weight in blocks.parameters())
