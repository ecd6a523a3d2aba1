"""The one place where data come in and forecasts go out: every check of the input is here.

Arrays, Series and wide frames become a `Panel` of numbers; forecasts go back as the same kind of
object, continued in time.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from xlstm_ts import advice
from xlstm_ts.exceptions import SeriesError

Floats = NDArray[np.float64]
# Kinds of dtype that are real numbers: bool, unsigned, integer, float.
NUMBERS = "buif"
# What the model computes in has no room for more.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A checked series of one or more channels.

    Parameters
    ----------
    values : ndarray of float64, shape (T, C)
        The readings; NaN is missing.
    index : pandas.Index
        The time of each reading, with one step between all of them.
    channels : tuple of str
        Names of the channels; "0", "1", ... for an array.
    like : object
        An empty object of the kind that came in (array, Series, frame), to give back the same.
    """

    values: Floats
    index: pd.Index[Any]
    channels: tuple[str, ...]
    like: NDArray[Any] | pd.Series[Any] | pd.DataFrame

    @property
    def step(self) -> str | None:
        """Step of the index as pandas writes it ("h", "15min"); None where readings are counted."""
        return getattr(self.index, "freqstr", None)

    def last(self, length: int) -> Panel:
        """Return the last `length` readings."""
        return replace(self, values=self.values[-length:], index=self.index[-length:])

    def future_index(self, horizon: int) -> pd.Index[Any]:
        """Return the times of the `horizon` steps after the last reading."""
        last = self.index[-1]
        if isinstance(self.index, pd.DatetimeIndex):
            return pd.date_range(
                last, periods=horizon + 1, freq=self.index.freq, name=self.index.name
            )[1:]
        if isinstance(self.index, pd.PeriodIndex):
            return pd.period_range(
                last + 1, periods=horizon, freq=self.index.freq, name=self.index.name
            )
        step = self.index.step  # type: ignore[attr-defined]
        return pd.RangeIndex(last + step, last + step * (horizon + 1), step, name=self.index.name)

    def restore(self, forecast: Floats) -> NDArray[Any] | pd.Series[Any] | pd.DataFrame:
        """Return a forecast `(H, C)` as the kind of object that came in, continued in time."""
        if isinstance(self.like, np.ndarray):
            return forecast[:, 0] if self.like.ndim == 1 else forecast
        index = self.future_index(len(forecast))
        if isinstance(self.like, pd.Series):
            return pd.Series(forecast[:, 0], index=index, name=self.like.name)
        return pd.DataFrame(forecast, index=index, columns=self.like.columns)


def read_panel(y: ArrayLike | pd.Series[Any] | pd.DataFrame, *, name: str = "y") -> Panel:
    """Check a series and turn it into numbers.

    Parameters
    ----------
    y : array (T,) or (T, C), Series, or wide DataFrame
        Readings in the order of time; NaN, or the mask of a masked array, is missing. A pandas
        object has a DatetimeIndex, a PeriodIndex or an index of integers, with one step
        throughout.
    name : str
        What the argument is called in an error.

    Returns
    -------
    Panel
        The readings in float64, with their index and names.

    Raises
    ------
    SeriesError
        Where `y` is empty, is not of real numbers, has the wrong number of axes, holds an
        infinity or a number beyond float32, has a channel without a single reading, or has an
        index that is not increasing by one step; the message names column, position and cure.
    """
    like: NDArray[Any] | pd.Series[Any] | pd.DataFrame
    if isinstance(y, pd.Series):
        frame, like = y.to_frame(), y.iloc[:0]
        channels: tuple[str, ...] = (name if y.name is None else str(y.name),)
    elif isinstance(y, pd.DataFrame):
        frame, like = y, y.iloc[:0]
        channels = tuple(str(column) for column in y.columns)
    else:
        array = _read_array(y, name=name)
        columns = array[:, None] if array.ndim == 1 else array
        frame, like = pd.DataFrame(columns), array[:0]
        channels = tuple(str(column) for column in frame.columns)
    if not len(frame):
        raise SeriesError(f"`{name}` has no readings; give at least one.")
    _check_channels(channels, name=name)
    values = np.column_stack([_read_channel(frame.iloc[:, j], name) for j in range(frame.shape[1])])
    _check_values(values, channels, frame.index, name=name)
    return Panel(
        values=values, index=_read_index(frame.index, name=name), channels=channels, like=like
    )


def check_same_channels(panel: Panel, known: Panel, *, name: str) -> None:
    """Refuse a series whose channels are not those of a known one.

    Raises
    ------
    SeriesError
        Where the number of channels or, for two frames, the names of the columns differ.
    """
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


def at_step_of(panel: Panel, known: Panel, *, name: str) -> Panel:
    """Return a panel at the step of a known one, or refuse it.

    Where readings are only counted there is nothing to compare. Of times that fit two steps (five
    working days in a row are five days) the known one is taken.

    Raises
    ------
    SeriesError
        Where the times go by another step.
    """
    index, times = panel.index, (pd.DatetimeIndex, pd.PeriodIndex)
    if not isinstance(index, times) or not isinstance(known.index, times):
        return panel
    if _step_kind(index.freq) == _step_kind(known.index.freq):
        return panel
    if isinstance(index, pd.DatetimeIndex) and len(index) > 1:
        step: Any = known.index.freq
        with suppress(ValueError):  # the times do not fit this step
            return replace(panel, index=pd.DatetimeIndex(index, freq=step))
    raise SeriesError(
        f"`{name}` has a step of {panel.step}, the forecaster was trained on one of "
        f"{known.step}; bring it to that: y.resample({known.step!r}).mean()."
    )


def _step_kind(freq: Any) -> object:
    """Return what indexes of one step share: month starts and month ends are months alike."""
    try:
        return pd.Timedelta(freq)
    except ValueError:  # a month or a year has no fixed length
        return freq.n, freq.rule_code.split("-")[0].rstrip("SE")


def _read_array(y: ArrayLike, *, name: str) -> NDArray[Any]:
    array = np.asarray(y)
    if isinstance(y, np.ma.MaskedArray) and array.dtype.kind in NUMBERS:
        array = np.where(np.ma.getmaskarray(y), np.nan, array)
    if array.ndim not in (1, 2):
        raise SeriesError(
            f"`{name}` must be (time,) or (time, channel), got an array with shape {array.shape}; "
            "reshape it, or give one series at a time."
        )
    return array


def _check_channels(channels: tuple[str, ...], *, name: str) -> None:
    if not channels:
        raise SeriesError(f"`{name}` has no columns; give at least one.")
    twice = {channel for channel in channels if channels.count(channel) > 1}
    if twice:
        raise SeriesError(f"`{name}` has more than one column named {min(twice)!r}; rename them.")


def _read_channel(column: pd.Series[Any], name: str) -> Floats:
    """Return one column as float64: real numbers only, never a guess at strings or dates."""
    if column.dtype.kind not in NUMBERS:
        raise SeriesError(
            f"`{name}` column {str(column.name)!r} has dtype {column.dtype}, not real numbers; "
            f"{advice.for_kind_of_column(column)}."
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _check_values(
    values: Floats, channels: tuple[str, ...], index: pd.Index[Any], *, name: str
) -> None:
    beyond = np.argwhere(np.abs(values) > LARGEST)
    if len(beyond):
        row, column = beyond[0]
        raise SeriesError(
            f"`{name}` column {channels[column]!r} is {values[row, column]} at position {row} "
            f"({index[row]}); infinities and numbers beyond float32 ({LARGEST:.1e}) cannot be "
            "used, put NaN for a missing reading."
        )
    silent = np.isnan(values).all(0)
    if silent.any():
        raise SeriesError(
            f"`{name}` column {channels[int(silent.argmax())]!r} has no reading, only NaN; drop it."
        )


def _read_index(index: pd.Index[Any], *, name: str) -> pd.Index[Any]:
    """Return the index with its step, or say where it breaks."""
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        _check_increasing(index, name=name)
        if isinstance(index, pd.PeriodIndex):
            return _periods(index, name=name)
        return _with_step(index, name=name)
    if pd.api.types.is_integer_dtype(index.dtype):
        _check_increasing(index, name=name)
        return _integer_index(index, name=name)
    kind = "several levels" if isinstance(index, pd.MultiIndex) else index.dtype
    raise SeriesError(
        f"`{name}` has an index of {kind}, not of times or integers; "
        f"{advice.for_kind_of_index(index)}."
    )


def _check_increasing(index: pd.Index[Any], *, name: str) -> None:
    if index.hasnans:
        row = int(np.argmax(index.isna()))
        raise SeriesError(f"`{name}` has no time at position {row}; drop the row or give its time.")
    if index.has_duplicates:
        row = int(index.duplicated().argmax())
        raise SeriesError(
            f"`{name}` has the time {index[row]} more than once, again at position {row}; "
            "keep one: y[~y.index.duplicated()]."
        )
    if not index.is_monotonic_increasing:
        row = int(np.argmax(index[1:] < index[:-1])) + 1
        raise SeriesError(
            f"`{name}` goes back in time at position {row} ({index[row - 1]}, then {index[row]}); "
            "sort it: y.sort_index()."
        )


def _with_step(index: pd.DatetimeIndex, *, name: str) -> pd.DatetimeIndex:
    if index.freq is not None:
        return index
    steps = index[1:] - index[:-1]
    freq: Any = "infer" if len(index) > 2 else next(iter(steps), None)
    known = pd.DatetimeIndex(index, freq=freq)
    if known.freq is not None:
        return known
    if not len(steps):
        raise SeriesError(f"`{name}` has one reading, so its step is unknown; set y.index.freq.")
    usual = steps.value_counts().index[0]
    row = int(np.argmax(steps != usual)) + 1
    raise SeriesError(
        f"`{name}` has an irregular index: {steps[row - 1]} before position {row} ({index[row]}), "
        f"most often {usual}; {advice.for_irregular_stamps(index)}."
    )


def _periods(index: pd.PeriodIndex, *, name: str) -> pd.PeriodIndex:
    regular = pd.period_range(index[0], periods=len(index), freq=index.freq, name=index.name)
    cure = "y.reindex(pandas.period_range(y.index[0], y.index[-1]))"
    _check_regular(index, regular, cure=cure, name=name)
    return regular


def _integer_index(index: pd.Index[Any], *, name: str) -> pd.RangeIndex:
    start, step = int(index[0]), int(index[1] - index[0]) if len(index) > 1 else 1
    regular = pd.RangeIndex(start, start + step * len(index), step, name=index.name)
    _check_regular(index, regular, cure="y.reindex(...)", name=name)
    return regular


def _check_regular(index: pd.Index[Any], regular: pd.Index[Any], *, cure: str, name: str) -> None:
    differs = np.asarray(index != regular)
    if differs.any():
        row = int(differs.argmax())
        raise SeriesError(
            f"`{name}` has an irregular index: {index[row]} at position {row}, expected "
            f"{regular[row]}; bring it to one step, with NaN in the gaps, by {cure}."
        )
