"""Checked data: series of numbers with their times, and the way back to what came in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.exceptions import SeriesError
from xlstm_ts.steps import future_index, gap_between, joined_index

Floats = NDArray[np.float64]
Like = NDArray[Any] | pd.Series | pd.DataFrame


class LongColumns(NamedTuple):
    """Names of the columns of a long frame, one row a reading."""

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"


@dataclass(frozen=True, kw_only=True)
class TimeSeries:
    """The readings of one series.

    Parameters
    ----------
    values : ndarray of float64, shape (T, C)
        The readings; NaN is missing.
    index : pandas.Index
        The time of each reading, with one step between all of them.
    covariates : ndarray of float64, shape (T + A, X)
        Columns beside the readings, and of the A next ones as far as they are known; NaN is
        missing.
    static : ndarray of float64, shape (S,)
        Numbers of the series as a whole.
    """

    values: Floats
    index: pd.Index[Any]
    covariates: Floats = field(default_factory=lambda: np.empty((0, 0)))
    static: Floats = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.values)

    def first(self, length: int) -> TimeSeries:
        """Return the first `length` readings, and nothing of what came after them."""
        return replace(
            self,
            values=self.values[:length],
            index=self.index[:length],
            covariates=self.covariates[:length],
        )

    def last(self, length: int) -> TimeSeries:
        """Return the last `length` readings, and what is known beside and after them."""
        start = max(0, len(self) - length)
        return replace(
            self,
            values=self.values[start:],
            index=self.index[start:],
            covariates=self.covariates[start:],
        )


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One or more checked series with the same channels and one step.

    Parameters
    ----------
    series : dict of TimeSeries
        By key, in the order in which they came; a single one has the key None.
    channels : tuple of str
        Names of the channels; "0", "1", ... for an array.
    like : array, Series or DataFrame
        An empty object of the kind that came in, to give back the same.
    long : LongColumns or None
        The names of the columns where a long frame came in; `like` is then a Series of them.
    is_example : bool
        Whether the series stand for many more, of which nothing is kept.
    """

    series: dict[Hashable, TimeSeries]
    channels: tuple[str, ...]
    like: Any
    long: LongColumns | None = None
    is_example: bool = False

    def __iter__(self) -> Iterator[TimeSeries]:
        return iter(self.series.values())

    @property
    def longest(self) -> TimeSeries:
        """The longest series, the first of them."""
        return max(self, key=len)

    @property
    def lengths(self) -> list[int]:
        """Readings of each series."""
        return [len(one) for one in self]

    @property
    def kept(self) -> dict[Hashable, TimeSeries]:
        """The series that others can follow on: none of an example."""
        return {} if self.is_example else self.series

    @property
    def is_single(self) -> bool:
        """Whether one series came by itself."""
        return None in self.series

    @property
    def kind(self) -> str:
        """What came, in words."""
        return "one unnamed series" if self.is_single else "a panel"

    @property
    def step(self) -> str | None:
        """Step of the index as pandas writes it ("h", "15min"); None where readings are counted."""
        return getattr(self.longest.index, "freqstr", None)

    def last(self, length: int) -> Panel:
        """Return the last `length` readings of each series."""
        return replace(self, series={key: one.last(length) for key, one in self.series.items()})

    def alone(self) -> Panel:
        """Return the longest series as one that came by itself."""
        if self.is_single:
            return self
        nothing = np.empty((0, len(self.channels)))
        is_array = isinstance(self.like, np.ndarray)
        like = nothing if is_array else pd.DataFrame(nothing, columns=list(self.channels))
        return Panel(series={None: self.longest}, channels=self.channels, like=like)

    def bridged(self, new: Panel, *, name: str) -> Panel:
        """Return new series that begin where those that are known end: gaps are missing readings.

        Raises
        ------
        SeriesError
            Where times of a series do not come after those that are known, or one of the two is a
            panel of named series and the other a single one.
        """
        if new.is_single != self.is_single:
            raise SeriesError(
                f"`{name}` is {new.kind}, what is known is {self.kind}; name a series by "
                "pandas.concat({'key': y}), or take it out of the panel by y.loc['key']."
            )
        series = dict(new.series)
        for key in series.keys() & self.kept.keys():
            called = name if key is None else f"{name}` series `{key}"
            series[key] = bridge(self.series[key], series[key], name=called)
        return replace(new, series=series)

    def extended(self, new: Panel) -> Panel:
        """Return the panel with bridged readings after those of the same series, and new series."""
        series = dict(self.kept)
        for key, one in new.series.items():
            series[key] = join_series(series[key], one) if key in series else one
        return replace(self, series=series, is_example=False)

    def restore(self, forecasts: Sequence[Floats]) -> Like:
        """Return forecasts `(H, C)`, one for each series, as the kind of object that came in."""
        if isinstance(self.like, np.ndarray):
            return self._restore_array(forecasts)
        if isinstance(self.like, pd.DataFrame):
            return self._join(forecasts, self.like.columns)
        joined = self._join(forecasts, pd.Index([self.like.name]))
        return joined if self.long else joined.iloc[:, 0]

    def restore_quantiles(self, forecasts: Sequence[Floats], levels: tuple[Any, ...]) -> Like:
        """Return forecasts `(H, C, Q)` of each series: columns (channel, level), or level alone."""
        if isinstance(self.like, np.ndarray):
            return self._restore_array(forecasts)
        columns: pd.Index[Any] = pd.Index(levels)
        if isinstance(self.like, pd.DataFrame):
            columns = pd.MultiIndex.from_product((self.like.columns, levels))
        return self._join([part.reshape(len(part), -1) for part in forecasts], columns)

    def _restore_array(self, forecasts: Sequence[Floats]) -> NDArray[Any]:
        if self.like.ndim == 3:
            return np.stack(forecasts)
        return forecasts[0][:, 0] if self.like.ndim == 1 else forecasts[0]

    def _join(self, forecasts: Sequence[Floats], columns: pd.Index[Any]) -> pd.DataFrame:
        parts = [
            pd.DataFrame(forecast, future_index(one.index, len(forecast)), columns)
            for one, forecast in zip(self, forecasts, strict=True)
        ]
        if self.is_single:
            return parts[0]
        joined = pd.concat(parts, keys=list(self.series), names=self.like.index.names)
        return joined.reset_index() if self.long else joined


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a plan has to know of series that are not in memory.

    Parameters
    ----------
    lengths : list of int
        Readings of each.
    longest : TimeSeries
        The longest one, or its beginning.
    channels : tuple of str
        Names of the channels.
    """

    lengths: list[int]
    longest: TimeSeries
    channels: tuple[str, ...]


def bridge(known: TimeSeries, new: TimeSeries, *, name: str) -> TimeSeries:
    """Return new readings from the end of the known ones on; those between are missing.

    Counts just go on: there is nothing between.
    """
    gap = gap_between(known.index, new.index, name=name)
    missing = np.full((gap, new.values.shape[1]), np.nan)
    index = future_index(known.index, gap + len(new))
    return replace(new, values=np.concatenate((missing, new.values)), index=index)


def join_series(known: TimeSeries, new: TimeSeries) -> TimeSeries:
    """Return one series of readings and those that begin where they end."""
    return replace(
        new,
        values=np.concatenate((known.values, new.values)),
        index=joined_index(known.index, new.index),
        covariates=np.concatenate((known.covariates[: len(known)], new.covariates)),
    )
