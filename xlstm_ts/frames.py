"""The one place where data come in and forecasts go out: every check of the input is here.

Arrays, Series, wide frames and panels (a MultiIndex of series and time, or a long frame) become
a `Panel` of numbers; forecasts go back as the same kind of object, continued in time.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from xlstm_ts import advice
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.keys import split_series
from xlstm_ts.steps import complete_index, future_index, gap_between, joined_index

Floats = NDArray[np.float64]
Like = NDArray[Any] | pd.Series | pd.DataFrame
# Kinds of dtype that are real numbers: bool, unsigned, integer, float.
NUMBERS = "buif"
TOGETHER = "put them together by pandas.concat({'first': one, 'second': other})"
# What the model computes in has no room for more.
LARGEST = float(np.finfo(np.float32).max)


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
    """

    values: Floats
    index: pd.Index[Any]

    def __len__(self) -> int:
        return len(self.values)

    def last(self, length: int) -> TimeSeries:
        """Return the last `length` readings."""
        return TimeSeries(values=self.values[-length:], index=self.index[-length:])


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
    """

    series: dict[Hashable, TimeSeries]
    channels: tuple[str, ...]
    like: Any
    long: LongColumns | None = None

    def __iter__(self) -> Iterator[TimeSeries]:
        return iter(self.series.values())

    @property
    def longest(self) -> TimeSeries:
        """The longest series, the first of them."""
        return max(self, key=len)

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

    def extended(self, new: Panel, *, name: str) -> Panel:
        """Return the panel with new readings after those of the same series, and new series.

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
        series = dict(self.series)
        for key, one in new.series.items():
            if key in series:
                called = name if key is None else f"{name}` series `{key}"
                series[key] = _join_series(series[key], one, name=called)
            else:
                series[key] = one
        return replace(self, series=series)

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


def read_panel(
    y: ArrayLike | pd.Series[Any] | pd.DataFrame,
    *,
    name: str = "y",
    long: LongColumns | None = None,
    known: Panel | None = None,
    may_be_silent: bool = False,
) -> Panel:
    """Check one or more series and turn them into numbers.

    Parameters
    ----------
    y : array (T,), (T, C) or (S, T, C), Series, or DataFrame
        Readings in the order of time; NaN, or the mask of a masked array, is missing. A pandas
        object has a DatetimeIndex, a PeriodIndex or an index of integers; with a MultiIndex its
        last level is the time and those before it name the series. A frame with the columns of
        `long` is taken as a long one. Stamps that are left out are missing readings.
    name : str
        What the argument is called in an error.
    long : LongColumns, optional
        Names of the columns of a long frame; by default `unique_id`, `ds`, `y`.
    known : Panel, optional
        What the forecaster was trained on: `y` must have its channels and its step.
    may_be_silent : bool
        Whether a channel may have no reading at all, as in a short piece of a stream.

    Returns
    -------
    Panel
        The readings in float64, with their index and names.

    Raises
    ------
    SeriesError
        Where `y` is empty, is not of real numbers, has the wrong number of axes, holds an
        infinity or a number beyond float32, has a channel without a single reading, has an index
        that is not increasing on the grid of one step, or is not like the known panel; the message
        names series, column, position and cure.

    Warns
    -----
    SeriesWarning
        Where stamps are left out, with their number.
    """
    long = LongColumns() if long is None else long
    if isinstance(y, pd.DataFrame) and set(long) <= set(y.columns):
        frame = _from_long(y, long, name=name)
        like: Like = frame[long.target].iloc[:0]
    else:
        frame, like = _to_frame(y, name=name)
        long = None
    if not len(frame):
        raise SeriesError(f"`{name}` has no readings; give at least one.")
    channels = _channels(frame, name=name)
    numbers = np.column_stack(
        [_read_channel(frame.iloc[:, j], name=name) for j in range(frame.shape[1])]
    )
    parts = split_series(pd.DataFrame(numbers, frame.index, list(channels)), name=name)
    read = _read_all(
        parts,
        name=name,
        known=None if known is None else known.longest.index,
        may_be_silent=may_be_silent,
    )
    panel = Panel(series=read, channels=channels, like=like, long=long)
    if known is not None:
        _check_same_channels(panel, known, name=name)
    return panel


def _to_frame(y: Any, *, name: str) -> tuple[pd.DataFrame, Like]:
    """Return a frame with one column a channel, and an empty object of the kind that came."""
    if isinstance(y, pd.Series):
        return y.to_frame(name if y.name is None else y.name), y.iloc[:0]
    if isinstance(y, pd.DataFrame):
        return y, y.iloc[:0]
    array = _read_array(y, name=name)
    if array.ndim < 3:
        return pd.DataFrame(array[:, None] if array.ndim == 1 else array), array[:0]
    many, length, width = array.shape
    index = pd.MultiIndex.from_product((range(many), range(length)))
    return pd.DataFrame(array.reshape(-1, width), index), array[:0]


def _read_array(y: ArrayLike, *, name: str) -> NDArray[Any]:
    if hasattr(y, "toarray"):
        raise SeriesError(f"`{name}` is sparse; give `{name}.toarray()`.")
    if isinstance(y, Mapping):
        raise SeriesError(f"`{name}` is a mapping; {TOGETHER}.")
    try:
        array = np.asarray(y)
    except ValueError as err:  # rows of different lengths
        raise SeriesError(
            f"`{name}` is not one array; if it holds several series {TOGETHER}."
        ) from err
    if isinstance(y, np.ma.MaskedArray) and array.dtype.kind in NUMBERS:
        array = np.where(np.ma.getmaskarray(y), np.nan, array)
    if array.ndim not in (1, 2, 3):
        raise SeriesError(
            f"`{name}` must be (time,), (time, channel) or (series, time, channel), got an array "
            f"with shape {array.shape}; reshape it."
        )
    return array


def _from_long(y: pd.DataFrame, columns: LongColumns, *, name: str) -> pd.DataFrame:
    """Return the readings of a long frame by series and time."""
    others = [str(column) for column in y.columns if column not in columns]
    if others:
        raise SeriesError(
            f"`{name}` is a long frame with columns of no known role: {', '.join(others)}; "
            f"keep {', '.join(columns)}."
        )
    if y[columns.id].isna().any():
        row = int(y[columns.id].isna().argmax())
        raise SeriesError(f"`{name}` has no {columns.id!r} at position {row}; name the series.")
    time = y[columns.time]
    if time.dtype.kind not in "Mui" and not isinstance(time.dtype, pd.PeriodDtype):
        raise SeriesError(
            f"`{name}` column {columns.time!r} has dtype {time.dtype}, not times or integers; use "
            f"y[{columns.time!r}] = pandas.to_datetime(y[{columns.time!r}])."
        )
    return y.set_index([columns.id, columns.time])[[columns.target]]


def _channels(frame: pd.DataFrame, *, name: str) -> tuple[str, ...]:
    channels = tuple(str(column) for column in frame.columns)
    if not channels:
        raise SeriesError(f"`{name}` has no columns; give at least one.")
    twice = {channel for channel in channels if channels.count(channel) > 1}
    if twice:
        raise SeriesError(f"`{name}` has more than one column named {min(twice)!r}; rename them.")
    return channels


def _read_channel(column: pd.Series[Any], *, name: str) -> Floats:
    """Return one column as float64: real numbers only, never a guess at strings or dates."""
    if column.dtype.kind not in NUMBERS:
        raise SeriesError(
            f"`{name}` column {str(column.name)!r} has dtype {column.dtype}, not real numbers; "
            f"{advice.for_kind_of_column(column)}."
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _read_all(
    parts: dict[Hashable, pd.DataFrame],
    *,
    name: str,
    known: pd.Index[Any] | None,
    may_be_silent: bool,
) -> dict[Hashable, TimeSeries]:
    """Check each series and complete its index; the longest one settles the step of all."""
    names = {key: name if key is None else f"{name}` series `{key}" for key in parts}
    longest = max(parts, key=lambda key: len(parts[key]))
    if known is None:
        known = complete_index(parts[longest].index, name=names[longest])
    read, missing = {}, {}
    for key, part in parts.items():
        _check_values(part, name=names[key], may_be_silent=may_be_silent)
        index = complete_index(part.index, name=names[key], known=known)
        if len(index) > len(part):
            missing[key] = len(index) - len(part)
            part = part.reindex(index)
        read[key] = TimeSeries(values=part.to_numpy(), index=index)
    if missing:
        _warn_of_gaps(missing, read, name=name)
    return read


def _warn_of_gaps(
    missing: dict[Hashable, int], read: dict[Hashable, TimeSeries], *, name: str
) -> None:
    step = getattr(next(iter(read.values())).index, "freqstr", "one count")
    where = "" if None in missing else f" in {len(missing)} of {len(read)} series"
    warnings.warn(
        f"`{name}` leaves out {sum(missing.values())} stamps{where} at its step of {step}; "
        "they are taken as missing readings.",
        SeriesWarning,
        stacklevel=4,
    )


def _check_values(frame: pd.DataFrame, *, name: str, may_be_silent: bool) -> None:
    values = frame.to_numpy()
    beyond = np.argwhere(np.abs(values) > LARGEST)
    if len(beyond):
        row, column = beyond[0]
        raise SeriesError(
            f"`{name}` column {frame.columns[column]!r} is {values[row, column]} at position {row} "
            f"({frame.index[row]}); infinities and numbers beyond float32 ({LARGEST:.1e}) cannot "
            "be used, put NaN for a missing reading."
        )
    silent = np.isnan(values).all(0)
    if silent.any() and not may_be_silent:
        raise SeriesError(
            f"`{name}` column {frame.columns[int(silent.argmax())]!r} has no reading, only NaN; "
            "drop it."
        )


def _join_series(known: TimeSeries, new: TimeSeries, *, name: str) -> TimeSeries:
    """Return one series of both; times between them are missing readings, counts just go on."""
    gap = gap_between(known.index, new.index, name=name)
    missing = np.full((gap, known.values.shape[1]), np.nan)
    values = np.concatenate((known.values, missing, new.values))
    later = future_index(known.index, gap + len(new))
    return TimeSeries(values=values, index=joined_index(known.index, later))


def _check_same_channels(panel: Panel, known: Panel, *, name: str) -> None:
    if len(panel.channels) != len(known.channels):
        raise SeriesError(
            f"`{name}` has {len(panel.channels)} channels, the forecaster was trained on "
            f"{len(known.channels)}: {', '.join(known.channels)}."
        )
    named = isinstance(panel.like, pd.DataFrame) and isinstance(known.like, pd.DataFrame)
    if named and panel.channels != known.channels:
        raise SeriesError(
            f"`{name}` has the columns {', '.join(panel.channels)}, the forecaster was trained on "
            f"{', '.join(known.channels)}; rename or reorder them."
        )
