"""What is said of each series as a whole: one row of a frame becomes numbers that never change."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.columns import Column
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.panels import Floats, LongColumns, Panel

Static = pd.DataFrame


def static_columns(static: Static, panel: Panel, *, long: LongColumns) -> list[Column]:
    """Return a column for each number, and one for each category of the series of a fit.

    Raises
    ------
    SeriesError
        As `read_static`, and where a column is empty.
    """
    rows, columns = read_static(static, panel, long=long), list[Column]()
    lacking = [key for key in panel.series if key not in rows]
    if lacking:
        raise SeriesError(f"`static` is missing for series {lacking[0]!r}; give it a row.")
    frame: Any = _by_key(static, long=long).loc[list(rows)]
    for name in frame.columns:
        if frame[name].isna().all():
            raise SeriesError(f"`static` column {name!r} has no value, only NaN; drop it.")
        if frame[name].dtype.kind in "buif":
            columns.append(Column(name=name, role="static"))
        else:
            categories = sorted(map(str, frame[name].dropna().unique()))
            columns += [Column(name=name, role="static", category=each) for each in categories]
    return columns


def read_static(static: Static, panel: Panel, *, long: LongColumns) -> dict[Hashable, Any]:
    """Return the rows of the series of a panel, as far as there are any.

    Raises
    ------
    SeriesError
        Where there is but one series, or `static` is no frame of one row a series.
    """
    frame: Any = _by_key(static, long=long)
    if panel.is_single:
        raise SeriesError("`static` tells series apart, but `y` is a single one; leave it out.")
    # As objects: a row of numbers alone would make a category of 1 one of 1.0.
    frame = frame.astype(object)
    return {key: frame.loc[key] for key in panel.series if key in frame.index}


def static_numbers(columns: Sequence[Column], row: Any, *, key: Hashable) -> Floats:
    """Return the numbers of a series, `(columns,)`; a category that is not known is none of all.

    Raises
    ------
    SeriesError
        Where a column is missing or holds what is no finite number.

    Warns
    -----
    SeriesWarning
        Where no series of the fit was of its category.
    """
    for name in names_of(columns):
        if name not in row.index:
            raise SeriesError(f"`static` has no column {name!r}; the fit had it.")
        seen = {column.category for column in columns if column.name == name} - {None}
        if seen and not pd.isna(row[name]) and str(row[name]) not in seen:
            warnings.warn(
                f"`static` {name!r} of series {key!r} is '{row[name]}', which no series of the "
                f"fit was (of {', '.join(sorted(map(str, seen)))}); it is taken as none of them.",
                SeriesWarning,
                stacklevel=5,
            )
    return np.array([_number(column, row[column.name], key=key) for column in columns], float)


def names_of(columns: Sequence[Column]) -> list[str]:
    """Return the names of columns, of categories once each."""
    return list(dict.fromkeys(column.name for column in columns))


def _by_key(static: Any, *, long: LongColumns) -> pd.DataFrame:
    if not isinstance(static, pd.DataFrame) or not len(static.columns):
        raise SeriesError("`static` must be a DataFrame, one row a series with its key as index.")
    frame = static.set_index(long.id) if long.id in static.columns else static
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise SeriesError(f"`static` has more than one row for series {twice!r}; keep one.")
    frame = frame.rename(columns=str)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise SeriesError(f"`static` has more than one column named {twice!r}; rename them.")
    return frame


def _number(column: Column, value: Any, *, key: Hashable) -> float:
    if column.category is not None:
        return float(str(value) == column.category)
    try:
        number = np.nan if pd.isna(value) else float(value)
    except (TypeError, ValueError):
        number = np.inf
    if np.isinf(number):
        raise SeriesError(
            f"`static` {column.name!r} of series {key!r} is {value}, not a finite number; "
            "put NaN where it is not known."
        )
    return number
