"""The nodes of the warm-up graph for an mLSTM block: the chunkwise form, from a state to a state.

The form is that of `xlstm_ts.kernels.mlstm_torch`, over the M tokens of each phase at once. Its
arrays are `(S, P * H, M, ...)`: rows, phases and heads, tokens. What log f is summed over is
written as products with constant matrices of zeros and minus ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.blocks import MLSTMBlock
from xlstm_ts.cells import HEAD_EPSILON
from xlstm_ts.export.builder import Builder, Constant
from xlstm_ts.export.chunk_scaling import LATER
from xlstm_ts.export.fold import Affine, array, fold_mlstm

ONE = np.float32(1)


class _Inputs(NamedTuple):
    """Names of what the tokens of a chunk say.

    `query`, `value` `(..., M, D)` and `(..., M, D + 1)`; `key` `(..., D, M)`; `i` `(..., M, 1)`;
    `sums` are those of log f: up to each token and after each, `(..., M, 1)`, and of all.
    """

    query: str
    key: str
    value: str
    i: str
    sums: list[str]


class ChunkBlock:
    """Writes the nodes of one block.

    Parameters
    ----------
    g : Builder
        The graph under construction, with the state of the block among its inputs.
    block : MLSTMBlock
        The weights.
    name : str
        What the names of its state begin with.
    tokens, phases : int
        M and P.

    Attributes
    ----------
    new : dict of str
        By name of the state, the name of what follows it.
    """

    def __init__(
        self, g: Builder, block: MLSTMBlock, *, name: str, tokens: int, phases: int
    ) -> None:
        self.g, self.block, self.name = g, block, name
        self.tokens, self.phases, self.length = tokens, phases, tokens * phases
        self.heads, self.dim = block.cell.heads, block.cell.dim
        self.weights = fold_mlstm(block)
        self.new: dict[str, str] = {}

    def write(self, x: str, present: str, absent: str) -> str:
        """Write the block over tokens `(S, L, E)` with marks `(S, L, 1)`; return new tokens."""
        token = self._norm(x)
        inputs = self._inputs(token, present, absent)
        h = self._read_all(inputs)
        self._remember(inputs)
        return self._out(h, token, x)

    def write_last(self, x: str, present: str, absent: str) -> str:
        """Write the block as the last one: of its tokens only the newest goes on, `(S, E)`."""
        g = self.g
        token = self._norm(x)
        inputs = self._inputs(token, present, absent)
        self._remember(inputs)
        h = self._read_newest(inputs)
        width = np.array([-1, self.block.norm.normalized_shape[0]])
        token, x = (g("Reshape", g.cut(part, axis=1, start=-1), width) for part in (token, x))
        return self._out(h, token, x)

    def _norm(self, x: str) -> str:
        norm = self.block.norm
        return self.g.norm(x, array(norm.weight), epsilon=norm.eps)

    def _affine(self, x: str, layer: Affine) -> str:
        return self.g("Add", self.g("MatMul", x, layer.weight), layer.bias)

    def _inputs(self, token: str, present: str, absent: str) -> _Inputs:
        g, dim, weights = self.g, self.dim, self.weights
        mixed = [] if weights.conv is None else [self._conv(weights.conv, g("Mul", token, present))]
        cell = self._affine(g("Concat", *mixed, token, absent, axis=2), weights.cell)
        cell = self._by_phase(cell, width=2 * dim + 2)
        query, key, i, f = g.split(cell, [dim, dim, 1, 1], axis=3)
        log_inverse = g("Softplus", g("Neg", f) if weights.bounded else f)
        count = self.tokens
        upto, rest = np.tril(np.ones((count, count))), np.triu(np.ones((count, count)), 1)
        sums = g("MatMul", -np.concatenate((upto, rest, np.ones((1, count)))), log_inverse)
        value = self._by_phase(self._affine(token, weights.value), width=dim + 1)
        key = g("Transpose", key, perm=[0, 1, 3, 2])
        return _Inputs(query, key, value, i, g.split(sums, [count, count, 1], axis=2))

    def _conv(self, layer: Affine, token: str) -> str:
        """Write the convolution over the tokens of each phase, its silu, and what it keeps."""
        g, phases = self.g, self.phases
        width = self.block.norm.normalized_shape[0]
        taps = len(layer.weight) // width
        # By tokens instead of phases, what is kept joins the tokens of the chunk as they came.
        past = self._swapped(f"{self.name}_conv", (phases, taps - 1, width))
        past = g("Reshape", past, np.array([-1, (taps - 1) * phases, width]))
        tokens = g("Concat", past, token, axis=1)
        kept = g.cut(tokens, axis=1, start=(1 - taps) * phases)
        kept = self._swapped(kept, (taps - 1, phases, width))
        self.new[f"{self.name}_conv"] = g(
            "Reshape", kept, np.array([-1, phases * (taps - 1) * width])
        )
        places = np.arange(self.length)[:, None] + phases * np.arange(taps)
        seen = g("Gather", tokens, places, axis=1)
        mixed = self._affine(g("Reshape", seen, np.array([-1, self.length, taps * width])), layer)
        return g.silu(mixed)

    def _swapped(self, value: str, shape: tuple[int, int, int]) -> str:
        """Lay out as `(S, *shape)` and swap the first two axes of the shape."""
        parts = self.g("Reshape", value, np.array([-1, *shape]))
        if 1 in shape[:2]:
            return parts
        return self.g("Transpose", parts, perm=[0, 2, 1, 3])

    def _by_phase(self, value: str, *, width: int) -> str:
        """Lay out `(S, L, H * width)` as `(S, P * H, M, width)`."""
        shape = np.array([-1, self.tokens, self.phases * self.heads, width])
        return self.g("Transpose", self.g("Reshape", value, shape), perm=[0, 2, 1, 3])

    def _read_all(self, inputs: _Inputs) -> str:
        """Write what every token reads from the memory, normed, `(S, L, H * D)`."""
        g = self.g
        inside, before, floor = self._reading(inputs)
        scores = g("Mul", g("MatMul", inputs.query, inputs.key), inside)
        past = g("Mul", g("MatMul", inputs.query, f"{self.name}_c"), before)
        h = self._divided(g("Add", past, g("MatMul", scores, inputs.value)), floor)
        h = g("Transpose", self._head_norm(h), perm=[0, 2, 1, 3])
        return g("Reshape", h, np.array([-1, self.length, self.heads * self.dim]))

    def _reading(self, inputs: _Inputs) -> tuple[str, str, str | np.float32]:
        """Write the weights of tokens j at tokens i, of the memory before, and the floor."""
        g, count = self.g, self.tokens
        upto = inputs.sums[0]
        row = g("Reshape", g("Sub", inputs.i, upto), np.array([0, 0, 1, count]))
        later = np.triu(np.full((count, count), LATER), 1)
        exponent = g("Add", g("Add", upto, row), later)
        if self.weights.bounded:
            return g("Exp", exponent), g("Exp", upto), ONE
        before = g("Add", upto, f"{self.name}_m")
        m = g("Max", before, g("ReduceMax", exponent, axes=[3], keepdims=1))
        inside, past = (g("Exp", g("Sub", part, m)) for part in (exponent, before))
        return inside, past, g("Exp", g("Neg", m))

    def _remember(self, inputs: _Inputs) -> None:
        """Write the memory after the chunk."""
        g, name = self.g, self.name
        _, rest, all_of_it = inputs.sums
        written = g("Add", rest, inputs.i)
        if not self.weights.bounded:
            kept = g("Add", all_of_it, f"{name}_m")
            m = g("Max", kept, g("ReduceMax", written, axes=[2], keepdims=1))
            self.new[f"{name}_m"] = m
            all_of_it, written = (g("Sub", part, m) for part in (kept, written))
        write = g("Reshape", g("Exp", written), np.array([0, 0, 1, self.tokens]))
        fresh = g("MatMul", g("Mul", inputs.key, write), inputs.value)
        self.new[f"{name}_c"] = g("Add", g("Mul", f"{name}_c", g("Exp", all_of_it)), fresh)

    def _read_newest(self, inputs: _Inputs) -> str:
        """Write what the newest token reads from the memory it leaves, `(S, H * D)`."""
        g, heads = self.g, self.heads
        c = g.cut(self.new[f"{self.name}_c"], axis=1, start=-heads)
        query = g.cut(g.cut(inputs.query, axis=1, start=-heads), axis=2, start=-1)
        floor: Constant | str = ONE
        if not self.weights.bounded:
            m = g.cut(self.new[f"{self.name}_m"], axis=1, start=-heads)
            floor = g("Exp", g("Neg", m))
        h = self._head_norm(self._divided(g("MatMul", query, c), floor))
        return g("Reshape", h, np.array([-1, heads * self.dim]))

    def _divided(self, read: str, floor: str | Constant) -> str:
        """Divide what is read by its last column, or by the floor of that."""
        g = self.g
        read, match = g.split(read, [self.dim, 1], axis=3)
        return g("Div", read, g("Max", g("Abs", match), floor))

    def _head_norm(self, h: str) -> str:
        """Write the norm of each head, without its gain."""
        return self.g.norm(h, np.ones(self.dim), epsilon=HEAD_EPSILON)

    def _out(self, h: str, token: str, x: str) -> str:
        g = self.g
        gate = g("Sigmoid", g("MatMul", token, self.weights.gate))
        return g("Add", x, g("MatMul", g("Mul", h, gate), self.weights.down))
