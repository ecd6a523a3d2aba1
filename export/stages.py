"""What the nodes of a detector's stages share: a state in float64, and what they write often.

Letters of shapes: B batch, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.anomaly import correction
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.contract import BATCH, next_name

ZERO, ONE, MISSING = np.float64(0), np.float64(1), np.float64(np.nan)
MIDDLE, LAST = np.array([1]), np.array([2])  # axes, as a node wants them
Array = NDArray[np.float64]


class Field(NamedTuple):
    """An array of the state: its names before and after the reading, and what it starts from."""

    name: str
    next: str
    initial: NDArray[Any]


class StageNodes:
    """Writes nodes; collects the state.

    Parameters
    ----------
    channels : int
        C, of a reading.

    Attributes
    ----------
    g : Builder
        The graph under construction, of float64.
    each : tuple
        The shape `(B, C)`.
    state : list of Field
        The arrays so far.
    """

    def __init__(self, channels: int) -> None:
        self.g, self.channels, self.each = Builder(np.float64), channels, (BATCH, channels)
        self.state: list[Field] = []

    def carry(self, name: str, initial: Array) -> str:
        """Add an array of the state; return what it holds, `(B, ...)`."""
        self.state.append(Field(name, next_name(name), np.asarray(initial, np.float64)))
        return self.g.input(name, (BATCH, *np.shape(initial)))

    def keep(self, name: str, value: str) -> None:
        """Say what an array of the state is after the reading."""
        shape = next(one.initial.shape for one in self.state if one.name == name)
        self.g.output(value, next_name(name), (BATCH, *shape))

    def tell(self, name: str, value: str, width: int | None = None) -> None:
        """Make a value an output `(B, width)`, by default one for each channel."""
        self.g.output(value, name, self.each if width is None else (BATCH, width))

    def within(self, value: str, most: str | np.float64) -> str:
        """Cut a value to +-`most`."""
        if isinstance(most, str):
            return self.g("Max", self.g("Min", value, most), self.g("Neg", most))
        return self.g("Clip", value, -most, most)

    def marked(self, condition: str) -> str:
        """Write a condition as 1 or 0."""
        return self.g("Where", condition, ONE, ZERO)

    def moved(self, old: str, new: str, share: Array | np.float64) -> str:
        """Move a running mean by a share of the way."""
        return self.g("Add", old, self.g("Mul", self.g("Sub", new, old), share))

    def rows(self, *values: str) -> str:
        """Lay values `(B, C)` out as rows `(B, values, C)`."""
        rows = [self.g("Unsqueeze", value, MIDDLE) for value in values]
        return rows[0] if len(rows) == 1 else self.g("Concat", *rows, axis=1)

    def row(self, values: str, place: int, *, axis: int = 1) -> str:
        """Take one place of an axis, which goes."""
        return self.g("Gather", values, np.int64(place), axis=axis)


class CorrectionNodes:
    """Writes `Correction`: the running location and scale of errors.

    Parameters
    ----------
    nodes : StageNodes
        What the nodes are added to.
    name : str
        Before the names of its state.
    stage : Correction
        The fitted stage.
    rows : slice
        Which rows of it, where it has some.
    """

    def __init__(
        self,
        nodes: StageNodes,
        name: str,
        stage: correction.Correction,
        rows: slice = slice(None),
    ) -> None:
        self._nodes, self._name = nodes, name
        self._floor = stage.floor[rows]
        self._share = np.asarray(stage.share, np.float64)
        self._share = self._share[rows] if self._share.ndim else self._share
        self.location = nodes.carry(f"{name}_location", stage.location[rows])
        self.variance = nodes.carry(f"{name}_variance", stage.variance[rows])
        self.scale = nodes.g("Sqrt", self.variance)

    def step(self, error: str, there: str) -> str:
        """Write `Correction.step` of errors, of which those that are `there` are taken in."""
        n, g = self._nodes, self._nodes.g
        off = g("Sub", error, self.location)
        most = g("Mul", self.scale, np.float64(correction.WINSOR))
        known = g("Where", there, n.within(off, most), ZERO)
        moved = g("Add", self.location, g("Mul", known, self._share))
        n.keep(f"{self._name}_location", moved)
        variance = g(
            "Max", n.moved(self.variance, g("Mul", known, known), self._share), self._floor
        )
        n.keep(f"{self._name}_variance", g("Where", there, variance, self.variance))
        return g("Div", off, self.scale)
