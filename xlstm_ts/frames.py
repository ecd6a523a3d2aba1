"""The one place where data come in and forecasts go out: every check of the input is here.

Arrays, Series, wide frames and panels (a MultiIndex of series and time, or a long frame) become
a `Panel` of numbers; forecasts go back as the same kind of object, continued in time.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from xlstm_ts import advice
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.keys import split_series
from xlstm_ts.panels import Floats, Like, LongColumns, Panel, TimeSeries
from xlstm_ts.steps import complete_index

# Kinds of dtype that are real numbers: bool, unsigned, integer, float.
NUMBERS = "buif"
TOGETHER = "put them together by pandas.concat({'first': one, 'second': other})"
# What the model computes in has no room for more.
LARGEST = float(np.finfo(np.float32).max)


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
        What the model was trained on: `y` must have its channels and its step.
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
    numbers = _numbers(frame, name=name)
    channels = tuple(numbers.columns)
    read = _read_all(
        split_series(numbers, name=name),
        name=name,
        known=None if known is None else known.longest.index,
        may_be_silent=may_be_silent,
    )
    panel = Panel(series=read, channels=channels, like=like, long=long)
    if known is not None:
        _check_same_channels(panel, known, name=name)
    return panel


class Columns(NamedTuple):
    """Checked columns beside the readings, by series."""

    parts: dict[Hashable, pd.DataFrame]
    names: list[str]
    is_array: bool

    def has(self, key: Hashable, *, position: int) -> bool:
        """Return whether there are values of a series; arrays go by its position."""
        return (position < len(self.parts)) if self.is_array else key in self.parts

    def of(self, key: Hashable, *, position: int) -> pd.DataFrame:
        """Return the values of a series."""
        return list(self.parts.values())[position] if self.is_array else self.parts[key]


def read_columns(
    X: ArrayLike | pd.Series[Any] | pd.DataFrame, *, long: LongColumns, name: str = "X"
) -> Columns:
    """Check columns beside the readings; their times are compared where the readings are known.

    Parameters
    ----------
    X : array (T,), (T, X) or (S, T, X), Series, or DataFrame
        Numbers, NaN where missing; wide, with a MultiIndex, or long.
    long : LongColumns
        Names of the columns of a long frame.
    name : str
        What the argument is called in an error.

    Raises
    ------
    SeriesError
        Where `X` is empty, holds what is no finite number, or a column twice.
    """
    if isinstance(X, pd.DataFrame) and {long.id, long.time} <= set(X.columns):
        if long.target in X.columns:
            raise SeriesError(
                f"`{name}` holds the readings, column {long.target!r}, which a forecast must not "
                f"see; give {name}.drop(columns={long.target!r})."
            )
        frame = _by_key(X, long, name=name)
    else:
        frame, _ = _to_frame(X, name=name)
    if not len(frame):
        raise SeriesError(f"`{name}` has no rows; give at least one.")
    numbers = _numbers(frame, name=name)
    _check_finite(numbers, name=name)
    is_array = not isinstance(X, pd.Series | pd.DataFrame)
    return Columns(split_series(numbers, name=name), list(numbers.columns), is_array)


def _numbers(frame: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """Return the columns as float64, named by text."""
    names = _channels(frame, name=name)
    columns = [_read_channel(frame.iloc[:, j], name=name) for j in range(frame.shape[1])]
    return pd.DataFrame(np.column_stack(columns), frame.index, list(names))


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
            f"keep {', '.join(columns)}, and give what goes beside the readings as `X`."
        )
    return _by_key(y, columns, name=name)


def _by_key(y: pd.DataFrame, columns: LongColumns, *, name: str) -> pd.DataFrame:
    """Return a long frame by series and time."""
    if y[columns.id].isna().any():
        row = int(y[columns.id].isna().argmax())
        raise SeriesError(f"`{name}` has no {columns.id!r} at position {row}; name the series.")
    time = y[columns.time]
    if time.dtype.kind not in "Mui" and not isinstance(time.dtype, pd.PeriodDtype):
        raise SeriesError(
            f"`{name}` column {columns.time!r} has dtype {time.dtype}, not times or integers; use "
            f"{name}[{columns.time!r}] = pandas.to_datetime({name}[{columns.time!r}])."
        )
    return y.set_index([columns.id, columns.time])


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
            f"{advice.for_kind_of_column(column, of=name)}."
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
    _check_finite(frame, name=name)
    silent = np.isnan(frame.to_numpy()).all(0)
    if silent.any() and not may_be_silent:
        raise SeriesError(
            f"`{name}` column {frame.columns[int(silent.argmax())]!r} has no reading, only NaN; "
            "drop it."
        )


def _check_finite(frame: pd.DataFrame, *, name: str) -> None:
    values = frame.to_numpy()
    beyond = np.argwhere(np.abs(values) > LARGEST)
    if len(beyond):
        row, column = beyond[0]
        raise SeriesError(
            f"`{name}` column {frame.columns[column]!r} is {values[row, column]} at position {row} "
            f"({frame.index[row]}); infinities and numbers beyond float32 ({LARGEST:.1e}) cannot "
            "be used, put NaN for a missing reading."
        )


def _check_same_channels(panel: Panel, known: Panel, *, name: str) -> None:
    if len(panel.channels) != len(known.channels):
        raise SeriesError(
            f"`{name}` has {len(panel.channels)} channels, the model was trained on "
            f"{len(known.channels)}: {', '.join(known.channels)}."
        )
    named = isinstance(panel.like, pd.DataFrame) and isinstance(known.like, pd.DataFrame)
    if named and panel.channels != known.channels:
        raise SeriesError(
            f"`{name}` has the columns {', '.join(panel.channels)}, the model was trained on "
            f"{', '.join(known.channels)}; rename or reorder them."
        )
