"""The step graph, built node by node from the weights of a model.

The graph is `XLSTM.step` in plain operators of opset 17, as few as it takes: below a hundred
units a node costs more than its arithmetic. Letters of shapes as there: B batch, G groups of
channels, C channels of all groups, P readings in a patch, R in the buffer, E width of the stream,
I inside of a block, H heads, D units of a head, K taps, Q quantile levels. The scaling works on
channels, `(B, C)`; the blocks work on rows, one for each group of each stream, `(B * G, ...)`.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from xlstm_ts.blocks import MLSTMBlock, SLSTMBlock
from xlstm_ts.cells import HEAD_EPSILON
from xlstm_ts.columns import Column
from xlstm_ts.covariates import FARTHEST
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.columns import ColumnNodes
from xlstm_ts.export.contract import (
    BATCH,
    FORECAST,
    METADATA_KEY,
    READING,
    Contract,
    StateArray,
    next_name,
)
from xlstm_ts.export.fold import (
    Affine,
    array,
    channel_units,
    fold_embedding,
    fold_mlstm,
    fold_slstm,
    join_products,
    join_token_products,
    weights_hash,
)
from xlstm_ts.export.head import write_head, write_raw, write_reading
from xlstm_ts.model import XLSTM
from xlstm_ts.scaling import VARIANCE_FLOOR, memory

ZERO, ONE = np.float32(0), np.float32(1)
# Up to this inside one product with zeros in it is faster than three without.
WIDEST_JOINED = 64
# What an empty memory starts from: next to nothing, at a scale that keeps every number finite.
NEXT_TO_NOTHING = 1e-30
EMPTY_SCALE = -80.0


def build_step_graph(
    model: XLSTM,
    *,
    channels: tuple[str, ...],
    step: str | None,
    library_version: str,
    units: tuple[str, ...] = (),
    columns: tuple[Column, ...] = (),
    seconds: float | None = None,
    zone: str | None = None,
) -> onnx.ModelProto:
    """Build the graph of `XLSTM.step`.

    Parameters
    ----------
    model : XLSTM
        The trained model, on any device.
    channels : tuple of str
        Names of its channels.
    step : str or None
        Time between two readings, as `Contract` has it.
    library_version : str
        What the file names as its origin.
    units : tuple of str
        Units of the channels, as `Contract` has them.
    columns : tuple of Column
        What the covariates are, in their order.
    seconds : float or None
        Length of the step, as `Contract` has it.
    zone : str or None
        Time zone, as `Contract` has it.

    Returns
    -------
    onnx.ModelProto
        A checked model of opset 17, IR version 8, with a dynamic batch and its `Contract`.
    """
    config = model.config
    graph = _StepGraph(model)
    reading = graph.g.input(READING, (BATCH, config.n_channels))
    forecast = graph.build(reading)
    shape = (BATCH, config.horizon, config.n_channels, len(config.quantiles))
    graph.g.output(forecast, FORECAST, shape)
    for field in graph.state:
        graph.g.output(graph.new[field.name], next_name(field.name), field.dims)
    contract = Contract(
        channels=channels,
        horizon=config.horizon,
        quantiles=config.quantiles,
        step=step,
        state=tuple(graph.state),
        library_version=library_version,
        weights_hash=weights_hash(model),
        units=units,
        columns=columns,
        seconds=seconds,
        zone=zone,
        transform=config.target_transform,
    )
    return graph.g.model({METADATA_KEY: contract.to_json()})


def read_contract(graph: onnx.ModelProto) -> Contract:
    """Return what the metadata of a graph say."""
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    return Contract.from_json(texts[METADATA_KEY])


class _Marks(NamedTuple):
    """Whether tokens hold a reading `(rows, 1)`: 1 or 0, the other way round, and a boolean."""

    present: str
    absent: str
    there: str


class _StepGraph:
    """Writes the nodes of one model; collects the state and, by name, what follows it."""

    def __init__(self, model: XLSTM) -> None:
        self.g, self.model, self.config = Builder(), model, model.config
        self.state: list[StateArray] = []
        self.new: dict[str, str] = {}
        self._rest: dict[str, str] = {}
        # Where past readings are looked at, all that belongs to a channel has an axis of time.
        self._windowed = self.config.buffer_length > 1 or self.config.linear_length > 0
        channels = self.config.n_channels
        self._channels = (channels, 1) if self._windowed else (channels,)
        self._units = channel_units(model)
        self._columns: ColumnNodes | None = None

    def build(self, reading: str) -> str:
        """Write the whole step; return the name of the forecast `(B, horizon, C, Q)`."""
        g, config = self.g, self.config
        reading = write_reading(g, config, reading, units=self._units)
        if config.n_columns:
            self._columns = ColumnNodes(g, self.model)
        value, observed = self._read(reading)
        mark = g("Where", observed, ONE, ZERO)
        value, deviation, scale = self._scale(value, observed, mark)
        size = {"rows": config.n_channels, "length": config.buffer_length}
        marks = self._window("buffer_observed", mark, **size)
        deviations = deviation
        if self._windowed:
            values = self._window("buffer_value", value, **size)
            deviations = g("Add", g("Sub", values, value), deviation)
        scaled = g("Mul", g("Div", deviations, scale), marks)  # a gap is at the mean
        x, present = self._embed(scaled, marks)
        tokens = _Marks(present, g("Sub", ONE, present), self._there(observed, present))
        for j, block in enumerate(self.model.blocks):
            if isinstance(block, MLSTMBlock):
                x = self._mlstm_block(f"block{j}", block, x, tokens=tokens)
            else:
                x = self._slstm_block(f"block{j}", cast("SLSTMBlock", block), x, tokens=tokens)
        forecast = write_head(g, self.model.head, x, scaled=scaled, columns=self._columns)
        mean = g("Sub", value, deviation)
        return write_raw(g, config, forecast, mean=mean, scale=scale, units=self._units)

    def _carry(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        rows: int = 1,
        start: float | tuple[float, ...] = 0,
    ) -> str:
        """Add an array of the state, `(rows, *shape)` for one stream; return what it holds."""
        field = StateArray(name=name, shape=(rows, *shape), initial=start)
        self.state.append(field)
        return self.g.input(name, field.dims)

    def _dequeue(self, name: str, shape: tuple[int, ...], *, start: float = 0) -> str:
        """Take the state of a cell that is one patch old, from a queue along the first axis."""
        period, (length, *rest) = self.config.patch_length, shape
        queue = (period * length, *rest)
        value = self._carry(name, queue, rows=self.config.groups, start=start)
        if period == 1:
            return value
        oldest, self._rest[name] = self.g.split(value, [length, (period - 1) * length], axis=1)
        return oldest

    def _enqueue(self, name: str, newest: str) -> None:
        """Put the state that a cell leaves at the end of its queue."""
        if name in self._rest:
            newest = self.g("Concat", self._rest[name], newest, axis=1)
        self.new[name] = newest

    def _affine(self, x: str, layer: Affine) -> str:
        return self.g("Gemm", x, layer.weight, layer.bias)

    def _norm(self, x: str, layer: nn.LayerNorm) -> str:
        return self.g.norm(x, array(layer.weight), epsilon=layer.eps)

    def _read(self, reading: str) -> tuple[str, str]:
        """Write the reading as what belongs to channels is laid out, and where there is one."""
        g, units = self.g, self._units
        if self._windowed:
            reading = g("Reshape", reading, np.array([-1, self.config.n_channels, 1]))
        limit = FARTHEST * units.spread
        off = reading
        # A centre below the digits of the limit need not go off.
        if (np.abs(units.center) > limit * np.finfo(np.float32).eps / 2).any():
            off = g("Sub", off, self._per_channel(units.center))
        return reading, g("Less", g("Abs", off), self._per_channel(limit))  # false for NaN

    def _scale(self, value: str, observed: str, mark: str) -> tuple[str, str, str]:
        """Write `scaling_step`; return the reading, its deviation from the mean, the scale.

        The state holds the last reading and its deviation in place of the mean: differences of
        readings are exact, and nothing of the size of the level is ever summed.
        """
        g = self.g
        seen = self._carry("scaling_seen", self._channels, start=NEXT_TO_NOTHING)
        last = self._carry("scaling_last", self._channels, start=tuple(self._units.center.tolist()))
        deviation = self._carry("scaling_deviation", self._channels)
        variance = self._carry("scaling_variance", self._channels)
        value = g("Where", observed, value, last)
        seen = g("Min", g("Add", seen, mark), np.float32(memory(self.config.scaling_span)))
        share = g("Div", mark, seen)
        innovation = g("Add", g("Sub", value, last), deviation)
        deviation = g("Sub", innovation, g("Mul", share, innovation))
        moved = g("Sub", g("Mul", innovation, deviation), variance)
        variance = g("Add", variance, g("Mul", share, moved))
        new = {"seen": seen, "last": value, "deviation": deviation, "variance": variance}
        self.new |= {f"scaling_{name}": value for name, value in new.items()}
        floor = self._per_channel(VARIANCE_FLOOR * self._units.spread**2)
        return value, deviation, g("Sqrt", g("Add", variance, floor))

    def _per_channel(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lay out a constant of each channel as what belongs to channels is laid out."""
        return values.reshape(self._channels)

    def _window(self, name: str, newest: str, *, rows: int, length: int) -> str:
        """Write the last readings, `(B, rows, length)`; of one reading the newest is all."""
        if length == 1:
            return newest
        past = self._carry(name, (rows, length - 1))
        window = self.g("Concat", past, newest, axis=2)
        self.new[name] = self.g.cut(window, axis=2, start=1)
        return window

    def _last(self, window: str, length: int) -> str:
        if length == self.config.buffer_length:
            return window
        return self.g.cut(window, axis=2, start=-length)

    def _embed(self, scaled: str, marks: str) -> tuple[str, str]:
        """Write the token `(rows, E)` and whether it holds a reading `(rows, 1)`, as 1 or 0."""
        g, config = self.g, self.config
        patch, channels = config.patch_length, config.group_channels
        scaled, marks = (self._rows(self._last(part, patch)) for part in (scaled, marks))
        present = marks if patch * channels == 1 else g("ReduceMax", marks, axes=[1], keepdims=1)
        x = self._affine(g("Concat", scaled, marks, axis=1), fold_embedding(self.model))
        if self.model.channel is not None:
            x = self._with_groups(x, array(self.model.channel))
        if self._columns is not None:
            added, there = self._columns.embed(self._window)
            x = self._with_stream("Add", x, added, width=config.d_model)
            present = self._with_stream("Max", present, there, width=1) if there else present
        return x, present

    def _there(self, observed: str, present: str) -> str:
        """Write whether a token holds a reading `(rows, 1)`, as a boolean; only an sLSTM asks."""
        config = self.config
        if "s" not in config.blocks:
            return ""
        alone = config.patch_length * (config.group_channels + config.n_past + config.n_known) == 1
        return self._rows(observed) if alone else self.g("Greater", present, ZERO)

    def _with_stream(self, operator: str, rows: str, stream: str, *, width: int) -> str:
        """Join what belongs to rows `(B * G, width)` with what belongs to streams `(B, width)`."""
        g, groups = self.g, self.config.groups
        if groups == 1:
            return g(operator, rows, stream)
        parts = (
            g("Reshape", part, np.array([-1, count, width]))
            for part, count in ((rows, groups), (stream, 1))
        )
        return g("Reshape", g(operator, *parts), np.array([-1, width]))

    def _with_groups(self, rows: str, vectors: NDArray[np.float64]) -> str:
        """Add to rows `(B * G, E)` a constant `(G, E)` of their groups."""
        g, width = self.g, self.config.d_model
        x = g("Add", g("Reshape", rows, np.array([-1, *vectors.shape])), vectors)
        return g("Reshape", x, np.array([-1, width]))

    def _rows(self, window: str) -> str:
        """Lay out what belongs to channels by rows: `(B, C)` or `(B, C, P)` to `(rows, ...)`."""
        config = self.config
        if not self._windowed and config.groups == 1:
            return window
        width = config.patch_length * config.group_channels
        return self.g("Reshape", window, np.array([-1, width]))

    def _convolved(self, name: str, conv: Affine | None, x: str, present: str) -> list[str]:
        """Write the causal convolution, if any, an absent token as zero, and its silu."""
        if conv is None:
            return []
        g, width = self.g, self.config.d_model
        past = self._dequeue(f"{name}_conv", (len(conv.weight) - width,))
        tokens = g("Concat", past, g("Mul", x, present), axis=1)
        self._enqueue(f"{name}_conv", g.cut(tokens, axis=1, start=width))
        return [self.g.silu(self._affine(tokens, conv))]

    def _stabilise(self, name: str, shape: tuple[int, ...], *, i: str, minus_f: str) -> list[str]:
        """Write the stabilised gates f' and i' and the new log-scale m (equations 15 to 17).

        log sigmoid(f) is -Softplus(-f): Log(Sigmoid(f)) loses the forget gates near one.
        """
        g = self.g
        before = self._dequeue(f"{name}_m", shape, start=EMPTY_SCALE)
        kept = g("Sub", before, g("Softplus", minus_f))
        m = g("Max", kept, i)
        self._enqueue(f"{name}_m", m)
        return [g("Exp", g("Sub", kept, m)), g("Exp", g("Sub", i, m)), m]

    def _mlstm_block(self, name: str, block: MLSTMBlock, x: str, *, tokens: _Marks) -> str:
        """Write an mLSTM block; its memory C has the normaliser n as its last column."""
        g, weights = self.g, fold_mlstm(block)
        heads, dim = block.cell.heads, block.cell.dim
        token = self._norm(x, block.norm)
        mixed = self._convolved(name, weights.conv, token, tokens.present)
        seen = g("Concat", *mixed, token, tokens.absent, axis=1)
        sizes = [dim, dim, 1, 1, dim + 1, dim]
        if not mixed or heads * dim <= WIDEST_JOINED:
            parts = self._by_head(self._affine(seen, join_products(weights, heads)), sum(sizes))
            query, key, i, f, value, gate = g.split(parts, sizes, axis=3)
        else:
            parts = self._by_head(self._affine(seen, weights.cell), sum(sizes[:4]))
            query, key, i, f = g.split(parts, sizes[:4], axis=3)
            beside = self._affine(token, join_token_products(weights, heads))
            value, gate = g.split(self._by_head(beside, sum(sizes[4:])), sizes[4:], axis=3)
        if weights.bounded:
            forget, write = g("Sigmoid", f), g("Exp", i)
            floor: str | np.float32 = ONE
        else:
            forget, write, m = self._stabilise(name, (heads, 1, 1), i=i, minus_f=f)
            floor = g("Exp", g("Neg", m))
        key = g("Mul", g("Reshape", key, np.array([0, 0, dim, 1])), write)
        kept = g("Mul", self._dequeue(f"{name}_c", (heads, dim, dim + 1)), forget)
        c = g("Add", kept, g("Mul", key, value))
        self._enqueue(f"{name}_c", c)
        read, match = g.split(g("MatMul", query, c), [dim, 1], axis=3)
        h = g("Div", read, g("Max", g("Abs", match), floor))
        h = g("Mul", self._head_norm(h, dim), g("Sigmoid", gate))
        return g("Gemm", g("Reshape", h, np.array([-1, heads * dim])), weights.down, x)

    def _by_head(self, x: str, width: int) -> str:
        """Lay out `(rows, H * width)` by heads, as rows of a matrix each."""
        heads = self.config.n_heads
        return self.g("Reshape", x, np.array([-1, heads, 1, width]))

    def _slstm_block(self, name: str, block: SLSTMBlock, x: str, *, tokens: _Marks) -> str:
        g, weights = self.g, fold_slstm(block)
        heads, dim = block.cell.heads, block.cell.dim
        width = heads * dim
        normed = self._norm(x, block.norm)
        mixed = self._convolved(name, weights.conv, normed, tokens.present)
        before, c = (self._dequeue(f"{name}_{letter}", (width,)) for letter in "hc")
        n = self._dequeue(f"{name}_n", (width,), start=NEXT_TO_NOTHING)
        gates = self._affine(
            g("Concat", *mixed, normed, before, tokens.absent, axis=1), weights.cell
        )
        i, minus_f, z, o = g.split(gates, [width] * 4, axis=1)
        forget, write, _ = self._stabilise(name, (width,), i=i, minus_f=minus_f)
        n = g("Add", g("Mul", forget, n), write)
        c = g("Add", g("Mul", forget, c), g("Mul", write, g("Tanh", z)))
        # An absent token keeps its output.
        h = g("Mul", g("Sigmoid", o), g("Div", c, n))
        h = g("Where", tokens.there, h, before)
        for letter, new in (("h", h), ("c", c), ("n", n)):
            self._enqueue(f"{name}_{letter}", new)
        h = self._head_norm(g("Reshape", h, np.array([-1, heads, dim])), dim)
        h = g("Reshape", h, np.array([-1, width]))
        x = g("Add", x, g("Mul", h, array(block.cell.norm.weight)))
        up = g("MatMul", self._norm(x, block.feed_norm), array(block.up.weight).T)
        feed, gated = g.split(up, [len(block.up.weight) // 2] * 2, axis=1)
        return g("Gemm", g("Mul", self.g.silu(feed), gated), array(block.down.weight).T, x)

    def _head_norm(self, h: str, dim: int) -> str:
        """Write the norm of each head, without its gain."""
        return self.g.norm(h, np.ones(dim), epsilon=HEAD_EPSILON)
