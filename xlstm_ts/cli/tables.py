"""A CSV file becomes a frame that a forecaster can use, and nothing in it is guessed in silence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xlstm_ts.cli.dates import UNCLEAR
from xlstm_ts.cli.unix import unix_unit
from xlstm_ts.exceptions import SeriesError

to_datetime: Any = pd.to_datetime  # its stubs take no options from a table
# How dates are tried, in this order: pandas's guess, offsets that change, fractions of a second
# that come and go, days before months. The first that fits every cell is taken.
DATES: tuple[dict[str, Any], ...] = (
    {},
    {"utc": True},
    {"format": "ISO8601"},
    {"format": "ISO8601", "utc": True},
    {"dayfirst": True},
)
LOOKED_AT = 1000  # cells that show whether a column holds dates
COUNT_BELOW = 1e8
MONTHS = 12


class Table(NamedTuple):
    """The readings of a file, and what was made of its columns.

    Attributes
    ----------
    readings : DataFrame
        The columns to forecast, on an index of times or, where they are counted, of integers.
    time : str
        Where the times are from, in words: "time from 'date'".
    left_out : dict of str to str
        Each column that is neither time nor reading, and the reason.
    """

    readings: pd.DataFrame
    time: str
    left_out: dict[str, str]


def read_table(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    targets: Sequence[str] | None = None,
    series: str | None = None,
) -> Table:
    """Read a CSV file with a header, one row a reading.

    Parameters
    ----------
    path : path-like
        The file: UTF-8, commas between columns.
    time : str, optional
        Column of the time: dates, integers that count, or unix time (integers from 1e8). By default
        the first column of dates or, without one, a first column of increasing integers or of
        numbers that rise by one step; without that either, rows are counted.
    targets : sequence of str, optional
        Columns to forecast; by default all columns of numbers but the time and a count of rows.
    series : str, optional
        Column that names the series of each row, where the file holds many: as text, whatever is in
        it. The readings then have it as the first level of their index.

    Returns
    -------
    Table
        Readings, and what was made of the columns.

    Raises
    ------
    SeriesError
        Where the file is no such table, or a column that was asked for is missing or of another
        kind; the message names file, column, first bad row and its value.
    """
    name = os.fspath(path)
    table = _read_csv(name, series)
    asked = [column for column in (time, series) if column is not None]
    for column in (*asked, *(targets or ())):
        if column not in table:
            raise SeriesError(
                f"{name} has no column {column!r}; it has {', '.join(table.columns)}."
            )
    if time is not None and time in (targets or ()):
        raise SeriesError(f"Column {time!r} of {name} cannot be both the time and a target.")
    if series is not None and series in (time, *(targets or ())):
        raise SeriesError(f"Column {series!r} of {name} names the series, and is nothing else.")
    keys = None if series is None else table.pop(series)
    if time is None:
        time = _find_time(table.drop(columns=list(targets or ())), whole=table)
    index, words = _read_time(table, time, name=name)
    readings, left_out = _read_targets(table.drop(columns=time or []), targets, name=name)
    if keys is not None:
        index = _keyed(index, keys, name=name)
    return Table(readings.set_axis(index), words, left_out)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the columns of a CSV file.

    Raises
    ------
    SeriesError
        Where the file is no table.
    """
    return [*_read_csv(os.fspath(path), None, nrows=0).columns]


def _keyed(index: pd.Index[Any], keys: pd.Series[Any], *, name: str) -> pd.MultiIndex:
    if keys.isna().any():
        row = int(np.argmax(keys.isna()))
        raise SeriesError(f"Column {keys.name!r} of {name} names no series in data row {row + 1}.")
    return pd.MultiIndex.from_arrays([keys, index], names=[keys.name, index.name])


def _read_csv(name: str, series: str | None, *, nrows: int | None = None) -> pd.DataFrame:
    try:
        texts: Any = {} if series is None else {series: str}
        table = pd.read_csv(name, low_memory=False, dtype=texts, nrows=nrows)
    except UnicodeDecodeError as err:
        raise SeriesError(f"{name} is not UTF-8 text ({err}); save it as UTF-8.") from err
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as err:
        raise SeriesError(
            f"{name} is not a table of comma-separated values: {str(err).strip()}."
        ) from err
    separator = next((mark for mark in ";\t|" if mark in table.columns[0]), None)
    if len(table.columns) == 1 and separator is not None:
        raise SeriesError(
            f"{name} has one column, {table.columns[0]!r}: its separator looks wrong, {separator!r}"
            " instead of ','; save it with commas between columns and points in decimals."
        )
    if not isinstance(table.index, pd.RangeIndex):
        raise SeriesError(
            f"{name} has more values in a row than names in its header, "
            f"{', '.join(table.columns)}; name every column."
        )
    return table


def _find_time(table: pd.DataFrame, *, whole: pd.DataFrame) -> str | None:
    """Return the first column of dates, or else the first of all if its numbers could be time."""
    for column, cells in table.items():
        if _is_text(cells) and _holds_dates(cells):
            return str(column)
    first = whole.columns[0]
    if first not in table or _is_text(whole[first]) or whole[first].dtype.kind == "b":
        return None
    numbers = whole[first].to_numpy(np.float64)
    rises = len(numbers) > 1 and bool((np.diff(numbers) > 0).all())
    whole_numbers = whole[first].dtype.kind in "iu"
    return str(first) if rises and (whole_numbers or _has_one_step(numbers)) else None


def _read_time(table: pd.DataFrame, column: str | None, *, name: str) -> tuple[pd.Index[Any], str]:
    if column is None:
        return table.index, "no column of times, rows are counted"
    cells = table[column]
    if _is_text(cells):
        parsed, words = _parse_dates(cells, name=name)
        return pd.DatetimeIndex(parsed, name=column), f"time from {column!r}{words}"
    numbers = cells.dropna().to_numpy(np.float64)
    least, most = numbers.min(initial=np.inf), numbers.max(initial=-np.inf)
    unit = unix_unit(least, most)
    if unit is not None:
        short, words = unit
        dates = pd.DatetimeIndex(to_datetime(cells, unit=short), name=column)
        return dates, f"time from {column!r}, read as unix {words} (UTC)"
    if cells.dtype.kind in "iu" and most < COUNT_BELOW:
        return pd.Index(cells, name=column), f"readings counted by {column!r}"
    if cells.dtype.kind == "f" and _has_one_step(cells.to_numpy()):
        return table.index, f"rows are counted, {column!r} rises by one step"
    raise SeriesError(
        f"Column {column!r} of {name} holds numbers that neither count readings nor are unix "
        f"time, {', '.join(map(str, cells.iloc[:2]))}, ...; write dates such as 2024-01-31 12:00."
    )


def _parse_dates(cells: pd.Series[Any], *, name: str) -> tuple[pd.Series[Any], str]:
    """Return dates, and in words what is not plain about how they were read."""
    ways, words = _ways(cells, name=name)
    for options in ways:
        dates = _to_dates(cells, options)
        if (dates.isna() == cells.isna()).all():
            return (
                dates,
                words if dates.dt.tz is None else f"{words}, by the clock of {dates.dt.tz}",
            )
    best = max((_to_dates(cells, options) for options in ways), key=lambda dates: dates.count())
    row = int(np.argmax(best.isna() & cells.notna()))
    raise SeriesError(
        f"Column {cells.name!r} of {name} holds no time in data row {row + 1}: "
        f"{cells.iloc[row]!r}; give its time, or name another column by --time."
    )


def _ways(cells: pd.Series[Any], *, name: str) -> tuple[Sequence[dict[str, Any]], str]:
    """Return how dates may be read, and in words which order of their numbers that is.

    pandas would read each date of 01/02/2024 and 13/02/2024 in another order.
    """
    numbers = cells.str.extract(UNCLEAR).iloc[:, [0, 2]].astype(float)
    if numbers.isna().all(axis=None):
        return DATES, ""
    tell_day, tell_month = (numbers > MONTHS).any()
    if tell_day and tell_month:
        raise SeriesError(
            f"Column {cells.name!r} of {name} begins some dates with their day and others with "
            "their month; write them such as 2024-01-31."
        )
    return ({"dayfirst": bool(tell_day)},), f", {'day' if tell_day else 'month'} first"


def _to_dates(cells: pd.Series[Any], options: dict[str, Any]) -> pd.Series[Any]:
    """Return the dates in a column of text, NaT where there is none."""
    with warnings.catch_warnings():  # pandas warns where it has to guess
        warnings.simplefilter("ignore")
        nothing = pd.Series(pd.NaT, cells.index)
        try:
            dates = to_datetime(cells, errors="coerce", **options)
        except ValueError:  # offsets that change
            return nothing
        return dates if dates.dtype.kind == "M" else nothing  # of these pandas 2 makes objects


def _holds_dates(cells: pd.Series[Any]) -> bool:
    """Return whether most cells are dates and not numbers."""
    some = cells.dropna().iloc[:LOOKED_AT]
    if 2 * pd.to_numeric(some, errors="coerce").count() > len(some):
        return False
    if 2 * sum(map(bool, map(UNCLEAR.match, some.astype(str)))) > len(some):
        return True
    return any(2 * _to_dates(some, options).count() > len(some) for options in DATES)


def _read_targets(
    table: pd.DataFrame, targets: Sequence[str] | None, *, name: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the columns to forecast as numbers, and why others are left out."""
    if targets:
        faults = {column: _not_numbers(table[column]) for column in targets}
        for column, fault in faults.items():
            if fault:
                raise SeriesError(
                    f"Column {column!r} of {name} is not of numbers: it {fault}; leave the cell of "
                    "a missing reading empty."
                )
        return table[list(targets)].apply(_as_numbers), {}
    faults = {str(column): _not_a_default(cells) for column, cells in table.items()}
    left_out = {column: fault for column, fault in faults.items() if fault}
    if len(left_out) == len(faults):
        reasons = "; ".join(f"{column!r} {fault}" for column, fault in left_out.items())
        raise SeriesError(f"{name} has no column of readings{': ' if reasons else ''}{reasons}.")
    return table.drop(columns=list(left_out)).apply(_as_numbers), left_out


def _as_numbers(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of numbers, as text or not."""
    try:
        return pd.to_numeric(cells)
    except ValueError:  # integers beyond 64 bits
        return cells.astype(float)


def _not_a_default(cells: pd.Series[Any]) -> str:
    """Return why a column is not forecast unless it is asked for; "" if it is."""
    if cells.dtype.kind == "b":
        return "is true or false"
    if not cells.count():
        return "is empty"
    if _counts_rows(cells):
        return "counts the rows"
    return _not_numbers(cells)


def _not_numbers(cells: pd.Series[Any]) -> str:
    """Return what is in the first cell of text, "" where there is none."""
    if not _is_text(cells):
        return ""
    bad = cells.notna() & pd.to_numeric(cells, errors="coerce").isna()
    if not bad.any():
        return ""
    row = int(np.argmax(bad))
    return f"holds {cells.iloc[row]!r} in data row {row + 1}"


def _is_text(cells: pd.Series[Any]) -> bool:
    return not pd.api.types.is_numeric_dtype(cells.dtype)


def _counts_rows(cells: pd.Series[Any]) -> bool:
    return len(cells) > 1 and cells.dtype.kind in "iu" and bool((cells.diff().iloc[1:] == 1).all())


def _has_one_step(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Return whether numbers rise by one step, rounding aside."""
    steps = np.diff(numbers)
    return len(steps) > 0 and steps[0] > 0 and np.allclose(steps, steps.mean(), rtol=1e-3, atol=0)
