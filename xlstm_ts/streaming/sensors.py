"""What the sensors of a pool keep beside the state of the graph, a row for each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.anomaly.decider import decide
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.anomaly.whitening import Innovation
from xlstm_ts.streaming.banks import Places

Arrays = dict[str, NDArray[Any]]
QUANTILES = "quantiles"


class Sensors:
    """The stages of many streams of a detector: arithmetic of arrays once for all of them.

    Parameters
    ----------
    host : AnomalyHost
        The fitted stages, as they begin.
    levels : int
        Quantile levels of the model.
    capacity : int
        Rows.

    Attributes
    ----------
    alphas : list of float
        Share of readings of each row that may be in alarm.
    """

    def __init__(self, host: AnomalyHost, *, levels: int, capacity: int) -> None:
        self._host = host.fresh()
        self._scorer = self._host.scorer.repeated(capacity)
        self._quantiles = np.full((capacity, host.n_channels, levels), np.nan)
        self._begun = self._host.scorer.repeated(1)
        # Each row gets its own when it begins.
        self._deciders = [self._host.decider] * capacity
        self.alphas = [host.alpha] * capacity

    @property
    def capacity(self) -> int:
        """How many rows there are."""
        return len(self._deciders)

    def grow(self, capacity: int) -> None:
        """Make room for so many; the rows that there are stay."""
        old, own = self.capacity, np.arange(self.capacity)
        grown = self._host.scorer.repeated(capacity)
        grown.put(own, self._scorer)
        self._scorer = grown
        more = ((0, capacity - old), (0, 0), (0, 0))
        self._quantiles = np.pad(self._quantiles, more, constant_values=np.nan)
        self._deciders += [self._host.decider] * (capacity - old)
        self.alphas += [self._host.alpha] * (capacity - old)

    def begin(self, place: int, *, alpha: float) -> None:
        """Let a row begin anew."""
        self._scorer.put(np.array([place]), self._begun)
        self._quantiles[place] = np.nan
        self._deciders[place] = copy.deepcopy(self._host.decider)
        self.alphas[place] = alpha

    def step(
        self,
        places: Places,
        values: NDArray[np.float64],
        forecast: Callable[[Innovation], NDArray[np.float32]],
    ) -> list[Verdict]:
        """Judge a reading of each of some rows.

        Parameters
        ----------
        places : ndarray of int64, shape (rows,)
            The rows.
        values : ndarray of float64, shape (rows, channels)
            Raw readings; NaN is missing.
        forecast : callable
            Takes what the model is to see, and returns its forecast of the next innovations,
            `(rows, channels, levels)`.
        """
        scorer = self._scorer.take(places)
        innovation = scorer.whitening.step(values)
        found = scorer.step(innovation, self._quantiles[places])
        rows = places.tolist()
        verdicts, rebased = decide(
            found,
            [self._deciders[row] for row in rows],
            alphas=[self.alphas[row] for row in rows],
        )
        if rebased:
            scorer.slow.rebase(rebased)
        self._scorer.put(places, scorer)
        self._quantiles[places] = forecast(innovation)
        return verdicts

    def pass_over(self, place: int, count: int) -> None:
        """Take missing readings of a row all at once, as `AnomalyHost.pass_over`."""
        self._scorer.whitening.gap[place] += count
        self._deciders[place].machine.row += count

    def acknowledge(self, place: int) -> None:
        """Close the open event of a row; its level is the new normal."""
        if self._deciders[place].acknowledge():
            self._scorer.slow.rebase(place)

    def kept(self, places: Places) -> Arrays:
        """Return a copy of what is needed to go on, by name with a row for each place."""
        arrays = {name: array[places] for name, array in self._scorer.state_dict().items()}
        told = [self._deciders[place].state_dict() for place in places.tolist()]
        names = self._deciders[0].state_dict()
        arrays |= {name: np.array([one[name] for one in told]) for name in names}
        return {**arrays, QUANTILES: self._quantiles[places]}

    def go_on(self, places: Places, kept: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `kept` gave.

        Raises
        ------
        ValueError, StreamError
            Where names or shapes are those of other stages; rows are then not to be used.
        """
        own = {**self._scorer.state_dict(), QUANTILES: self._quantiles}
        deciders = {name: rows for name, rows in kept.items() if name not in own}
        for name, array in own.items():
            if kept[name].shape != array[places].shape:
                raise ValueError(f"`{name}` has shape {kept[name].shape}")
            array[places] = kept[name]
        self._scorer.load_state_dict({k: own[k] for k in own if k != QUANTILES})
        for row, place in enumerate(places.tolist()):
            state = {name: rows[row] for name, rows in deciders.items()}
            self._deciders[place].load_state_dict(state)
