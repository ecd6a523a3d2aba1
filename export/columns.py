"""The nodes of the step graph for covariates: columns beside the reading, and of the next ones.

Letters of shapes as in `graph`; X is past and known columns, Y known and cyclic ones. What columns
say is worked out once for each stream, not for each group of its channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.covariates import FARTHEST
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.contract import BATCH, COVARIATES, FUTURE
from xlstm_ts.export.fold import array
from xlstm_ts.future import FuturePath
from xlstm_ts.model import XLSTM

ZERO, ONE = np.float32(0), np.float32(1)


class ColumnNodes:
    """Writes the nodes for the columns of a model that has some.

    Parameters
    ----------
    g : Builder
        The graph under construction; the inputs are added to it.
    model : XLSTM
        The model.
    times : tuple of int
        Axis of the readings of a chunk, `(L,)`; none for one reading.
    """

    def __init__(self, g: Builder, model: XLSTM, *, times: tuple[int, ...] = ()) -> None:
        config = model.config
        self.g, self.model, self.config = g, model, config
        self._times, self._last = times, 1 + len(times)
        self._columns = g.input(COVARIATES, (BATCH, *times, config.n_columns))
        self._cyclic = len(config.periods)
        self._future = ""
        if model.head.future_path is not None:
            shape = (BATCH, config.horizon, config.n_known + self._cyclic)
            self._future = g.input(FUTURE, shape)

    def embed(self, window: Callable[..., str]) -> tuple[str, str]:
        """Write what the columns add to the token of a stream, `(B, E)`; of a chunk `(B, L, E)`.

        Parameters
        ----------
        window : callable
            Takes the name and the newest `(B, X, 1)` of what a patch is to hold, the number of
            columns and of readings; returns the name of the last readings `(B, X, P)`. Of a chunk
            it takes `(B, X, L)` and returns `(B, X, L, P)`.

        Returns
        -------
        tuple of str
            The addend, and whether the patch holds a number, `(B, 1)` or `(B, L, 1)`; no name
            without numbers.
        """
        g, config = self.g, self.config
        per_reading = config.n_past + config.n_known
        sizes = (per_reading, config.n_static, self._cyclic)
        numbers, static, cyclic = self._parts(self._columns, sizes, axis=self._last)
        features, present = [], ""
        if numbers:
            patches = self._patches(numbers, per_reading, window)
            features += patches
            present = g("ReduceMax", patches[1], axes=[self._last], keepdims=1)
        if static:
            features.append(self._standardise(static, slice(per_reading, None))[0])
        if cyclic:
            features.append(self._waves(cyclic, rows=self._times))
        weight, bias = self._embedding(per_reading)
        features_now = self._joined(features, axis=self._last)
        if self._times:
            return g("Add", g("MatMul", features_now, weight), bias), present
        return g("Gemm", features_now, weight, bias), present

    def add_future(self, out: str, token: str, path: FuturePath) -> str:
        """Add what is known of the next readings to the head's output, `(B * G, H * C / G * Q)`."""
        g, config = self.g, self.config
        known, cyclic = self._parts(self._future, (config.n_known, self._cyclic), axis=2)
        features = []
        if known:
            features += self._standardise(
                known, slice(config.n_past, config.n_past + config.n_known)
            )
        if cyclic:
            features.append(self._waves(cyclic, rows=(config.horizon,)))
        ahead = g("MatMul", self._joined(features, axis=2), array(path.ahead.weight).T)
        width = len(path.ahead.weight)
        ahead = g("Reshape", ahead, np.array([-1, 1, config.horizon, width]))
        token = g("Gemm", token, array(path.token.weight).T, array(path.token.bias))
        token = g("Reshape", token, np.array([-1, config.groups, 1, width]))
        hidden = g("Add", token, ahead)
        hidden = g.silu(hidden)
        added = g("MatMul", hidden, array(path.out.weight).T)
        outputs = config.horizon * len(path.out.weight)
        return g("Add", out, g("Reshape", added, np.array([-1, outputs])))

    def _parts(self, value: str, sizes: tuple[int, ...], *, axis: int) -> list[str]:
        """Split an axis; a part of size zero has no name."""
        present = [size for size in sizes if size]
        names = iter(self.g.split(value, present, axis=axis) if len(present) > 1 else [value])
        return [next(names) if size else "" for size in sizes]

    def _joined(self, features: list[str], *, axis: int) -> str:
        return self.g("Concat", *features, axis=axis) if len(features) > 1 else features[0]

    def _patches(self, numbers: str, count: int, window: Callable[..., str]) -> list[str]:
        """Write values and marks of the patch, column by column, `(B, X * P)`, `(B, L, X * P)`."""
        g, patch = self.g, self.config.patch_length
        parts = self._standardise(numbers, slice(count))
        if patch == 1:
            return parts
        if self._times:
            newest = [g("Transpose", part, perm=[0, 2, 1]) for part in parts]
        else:
            newest = [g("Reshape", part, np.array([-1, count, 1])) for part in parts]
        windows = [
            window(f"columns_{name}", part, rows=count, length=patch)
            for name, part in zip(("value", "observed"), newest, strict=True)
        ]
        if self._times:
            windows = [g("Transpose", part, perm=[0, 2, 1, 3]) for part in windows]
        shape = np.array([-1, *self._times, count * patch])
        return [g("Reshape", part, shape) for part in windows]

    def _standardise(self, numbers: str, columns: slice) -> list[str]:
        """Write numbers in spreads from their centre, zero where missing, and their marks."""
        g, encoder = self.g, self.model.covariates
        center, spread = (array(part)[columns] for part in (encoder.center, encoder.spread))
        standard = g("Mul", g("Sub", numbers, center), 1 / spread)
        there = g("Less", g("Abs", standard), np.float32(FARTHEST))  # false for NaN
        return [g("Where", there, standard, ZERO), g("Where", there, ONE, ZERO)]

    def _waves(self, cyclic: str, *, rows: tuple[int, ...]) -> str:
        """Write sines and cosines of cyclic columns `(B, *rows, columns)`, zero where missing."""
        g, waves = self.g, array(self.model.covariates.waves)
        angle = g("Mul", g("Reshape", cyclic, np.array([-1, *rows, len(waves), 1])), waves)
        angle = g("Reshape", angle, np.array([-1, *rows, waves.size]))
        both = g("Concat", g("Sin", angle), g("Cos", angle), axis=len(rows) + 1)
        return g("Where", g("IsNaN", both), ZERO, both)

    def _embedding(self, per_reading: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rows of the embedding that belong to columns, and what their gaps add."""
        config = self.config
        patch, width = config.patch_length, config.group_channels + per_reading
        weight = array(self.model.embed.weight).T
        by_reading, now = np.split(weight, [2 * patch * width])
        columns = by_reading.reshape(2, patch, width, -1)[:, :, config.group_channels :]
        values, gaps = columns.swapaxes(1, 2).reshape(2, patch * per_reading, config.d_model)
        return np.concatenate((values, -gaps, now)), gaps.sum(0)
