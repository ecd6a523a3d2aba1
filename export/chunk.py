"""The warm-up graph: a whole chunk of readings at once, from and to the states of the step graph.

A chunk is a whole number of patches, so that each phase takes as many tokens and the queues of
cell states come out in the order in which they went in. Letters of shapes as in `graph`; L is
readings in a chunk, M = L / P tokens of each phase, S rows, B * G.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from xlstm_ts.blocks import MLSTMBlock
from xlstm_ts.covariates import FARTHEST
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.chunk_cells import ChunkBlock
from xlstm_ts.export.chunk_scaling import ChunkScaling, write_scaling
from xlstm_ts.export.columns import ColumnNodes
from xlstm_ts.export.contract import (
    BATCH,
    FORECAST,
    METADATA_KEY,
    READINGS,
    Contract,
    next_name,
)
from xlstm_ts.export.fold import array, channel_units, fold_embedding
from xlstm_ts.export.head import write_head, write_raw, write_reading
from xlstm_ts.model import XLSTM
from xlstm_ts.scaling import VARIANCE_FLOOR

ZERO, ONE = np.float32(0), np.float32(1)
# Products of the chunkwise form grow with the square of a chunk, what a call costs does not.
SHORTEST_CHUNK = 64


def chunk_length(patch_length: int) -> int:
    """Return the readings in a chunk: the least whole number of patches that is not short."""
    return -(-SHORTEST_CHUNK // patch_length) * patch_length


def build_chunk_graph(model: XLSTM, contract: Contract) -> onnx.ModelProto:
    """Build the warm-up graph that goes with a step graph.

    Parameters
    ----------
    model : XLSTM
        The trained model, on any device.
    contract : Contract
        That of its step graph.

    Returns
    -------
    onnx.ModelProto
        A checked model of opset 17, IR version 8, with a dynamic batch and its `Contract`.

    Raises
    ------
    ValueError
        Where a block is an sLSTM: its readings depend on one another, one after the other.
    """
    config = model.config
    if "s" in config.blocks:
        raise ValueError(
            f"A warm-up graph needs blocks of mLSTM alone, got blocks={config.blocks!r}: an sLSTM "
            "cannot take many readings at once. Export without `warm_up`; `Stream.warm_up` then "
            "steps."
        )
    graph = _ChunkGraph(model, contract)
    shape = (BATCH, config.horizon, config.n_channels, len(config.quantiles))
    graph.g.output(graph.build(), FORECAST, shape)
    for field in contract.state:
        graph.g.output(graph.new[field.name], next_name(field.name), field.dims)
    contract = replace(contract, chunk=graph.length)
    return graph.g.model({METADATA_KEY: contract.to_json()}, name="warm_up")


class _ChunkGraph:
    """Writes the nodes of one model; collects, by name, the state that follows."""

    def __init__(self, model: XLSTM, contract: Contract) -> None:
        self.g, self.model, self.config = Builder(), model, model.config
        config = self.config
        self.length = chunk_length(config.patch_length)
        self._readings = self.g.input(READINGS, (BATCH, self.length, config.n_channels))
        self._columns = (
            ColumnNodes(self.g, model, times=(self.length,)) if config.n_columns else None
        )
        for field in contract.state:
            self.g.input(field.name, field.dims)
        self.new: dict[str, str] = {}
        self._units = channel_units(model)

    def build(self) -> str:
        """Write the whole chunk; return the name of the forecast after it `(B, horizon, C, Q)`."""
        g, config = self.g, self.config
        value, mark = self._read()
        scaling, scale = self._scale(value, mark)
        values = self._window("buffer_value", scaling.last, length=config.buffer_length)
        marks = self._window("buffer_observed", mark, length=config.buffer_length)
        x, present = self._embed(values, marks, scaling, scale)
        absent = g("Sub", ONE, present)
        x = self._blocks(x, present, absent)
        value, deviation, scale = (self._end(p) for p in (scaling.last, scaling.deviation, scale))
        scaled = ""
        if self.model.head.linear_path is not None:
            values, marks = (
                g.cut(part, axis=2, start=-config.buffer_length) for part in (values, marks)
            )
            deviations = g("Add", g("Sub", values, value), deviation)
            scaled = g("Mul", g("Div", deviations, scale), marks)
        forecast = write_head(g, self.model.head, x, scaled=scaled, columns=self._columns)
        mean = g("Sub", value, deviation)
        return write_raw(g, config, forecast, mean=mean, scale=scale, units=self._units)

    def _blocks(self, x: str, present: str, absent: str) -> str:
        """Write the blocks; of the last one only the newest token goes on, `(S, E)`."""
        g, config = self.g, self.config
        blocks = cast("list[MLSTMBlock]", list(self.model.blocks))
        for j, block in enumerate(blocks):
            nodes = ChunkBlock(
                g,
                block,
                name=f"block{j}",
                tokens=self.length // config.patch_length,
                phases=config.patch_length,
            )
            write = nodes.write if j + 1 < len(blocks) else nodes.write_last
            x = write(x, present, absent)
            self.new |= nodes.new
        if blocks:
            return x
        return g("Reshape", g.cut(x, axis=1, start=-1), np.array([-1, config.d_model]))

    def _read(self) -> tuple[str, str]:
        """Write readings in units of their channel, zero where missing, and marks, `(B, C, L)`."""
        g, units = self.g, self._units
        value = write_reading(g, self.config, self._readings, units=units)
        value = g("Transpose", value, perm=[0, 2, 1])
        off = g("Abs", g("Sub", value, units.center[:, None]))
        observed = g("Less", off, FARTHEST * units.spread[:, None])  # false for NaN
        return g("Where", observed, value, ZERO), g("Where", observed, ONE, ZERO)

    def _scale(self, value: str, mark: str) -> tuple[ChunkScaling, str]:
        """Write the scaling and the scale at each reading."""
        g, config = self.g, self.config
        names = [f"scaling_{name}" for name in ChunkScaling._fields]
        column = np.array([-1, config.n_channels, 1])
        before = ChunkScaling(*(g("Reshape", name, column) for name in names))
        scaling = write_scaling(
            g, value, mark, before, span=config.scaling_span, length=self.length
        )
        windowed = config.buffer_length > 1 or config.linear_length > 0
        for name, part in zip(names, scaling, strict=True):
            end = self._end(part)
            row = np.array([-1, config.n_channels])
            self.new[name] = end if windowed else g("Reshape", end, row)
        floor = VARIANCE_FLOOR * self._units.spread[:, None] ** 2
        return scaling, g("Sqrt", g("Add", scaling.variance, floor))

    def _end(self, values: str) -> str:
        """Take the last reading, `(B, C, 1)`."""
        return self.g.cut(values, axis=2, start=-1)

    def _window(self, name: str, newest: str, *, length: int) -> str:
        """Put what came before, as far as it is looked at, in front of a chunk `(B, X, L)`."""
        if length == 1:
            return newest
        window = self.g("Concat", name, newest, axis=2)
        self.new[name] = self.g.cut(window, axis=2, start=1 - length)
        return window

    def _patches(self, window: str) -> str:
        """Lay out the last P readings at each reading of a chunk, `(B, X, L, P)`."""
        patch = self.config.patch_length
        recent = self.g.cut(window, axis=2, start=1 - patch - self.length)
        places = np.arange(self.length)[:, None] + np.arange(patch)
        return self.g("Gather", recent, places, axis=2)

    def _column_patches(self, name: str, newest: str, *, rows: int, length: int) -> str:
        del rows
        return self._patches(self._window(name, newest, length=length))

    def _embed(self, values: str, marks: str, scaling: ChunkScaling, scale: str) -> tuple[str, str]:
        """Write the tokens `(S, L, E)` and whether they hold a reading `(S, L, 1)`, as 1 or 0."""
        g = self.g
        values, marks = (self._patches(part) for part in (values, marks))
        value, deviation, scale = (
            g("Unsqueeze", part, np.array([3])) for part in (scaling.last, scaling.deviation, scale)
        )
        deviations = g("Add", g("Sub", values, value), deviation)
        scaled, marks = (
            self._rows(part) for part in (g("Mul", g("Div", deviations, scale), marks), marks)
        )
        present = g("ReduceMax", marks, axes=[2], keepdims=1)
        layer = fold_embedding(self.model)
        x = g("MatMul", g("Concat", scaled, marks, axis=2), layer.weight)
        x = g("Add", x, layer.bias)
        if self.model.channel is not None:
            x = self._by_group("Add", x, array(self.model.channel)[:, None])
        if self._columns is not None:
            added, there = self._columns.embed(self._column_patches)
            x = self._by_group("Add", x, g("Unsqueeze", added, np.array([1])))
            if there:
                there = g("Unsqueeze", there, np.array([1]))
                present = self._by_group("Max", present, there, width=1)
        return x, present

    def _rows(self, patches: str) -> str:
        """Lay out `(B, C, L, P)` by rows, channel by channel: `(S, L, C / G * P)`."""
        config = self.config
        if config.groups == 1:
            patches = self.g("Transpose", patches, perm=[0, 2, 1, 3])
        width = config.group_channels * config.patch_length
        return self.g("Reshape", patches, np.array([-1, self.length, width]))

    def _by_group(
        self,
        operator: str,
        rows: str,
        other: str | NDArray[np.float64],
        *,
        width: int | None = None,
    ) -> str:
        """Join rows `(S, L, width)` with what belongs to streams or groups, `(B, G, L, width)`."""
        g, width = self.g, width or self.config.d_model
        parts = g("Reshape", rows, np.array([-1, self.config.groups, self.length, width]))
        return g("Reshape", g(operator, parts, other), np.array([-1, self.length, width]))
