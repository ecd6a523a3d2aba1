"""Covariates from outside: columns of X, what is said of each series, fields of the calendar.

`learn` settles at a fit which columns there are; `Covariates.attach` puts their values beside the
readings of a panel, and checks them; `Covariates.table` lays them out as the model reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from xlstm_ts.calendars import calendar_columns
from xlstm_ts.columns import PERIODS, Column
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import Columns, read_columns
from xlstm_ts.panels import Floats, LongColumns, Panel, TimeSeries
from xlstm_ts.steps import TIMES, future_index
from xlstm_ts.units import Units, find_column_units

Static = pd.DataFrame
Exogenous = ArrayLike | pd.Series | pd.DataFrame
KnownFuture = Literal["all"] | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """The columns that a forecaster was trained with.

    Parameters
    ----------
    columns : tuple of Column
        Past ones first, then known, static, cyclic.
    """

    columns: tuple[Column, ...] = ()

    def named(self, *roles: str) -> list[str]:
        """Return the names of the columns of some roles, in order."""
        return [column.name for column in self.columns if column.role in roles]

    def attach(
        self,
        panel: Panel,
        X: Exogenous | None,
        static: Static | None,
        *,
        long: LongColumns,
        ahead: int = 0,
        only_ahead: bool = False,
        known: Panel | None = None,
    ) -> Panel:
        """Return the panel with the values of the columns beside its readings.

        Parameters
        ----------
        panel : Panel
            The readings.
        X : array, Series or DataFrame, or None
            Values by time, of the readings and of the `ahead` times after them.
        static : DataFrame or None
            One row for each series.
        long : LongColumns
            Names of the columns of a long frame.
        ahead : int
            Times after the readings of which known columns are asked for.
        only_ahead : bool
            Whether the readings have their values already, and `X` is of the times after them.
        known : Panel, optional
            Series that were seen before: what is static of them need not be said again.

        Raises
        ------
        SeriesError
            Where values are missing that are needed, or cannot be used; it says which.
        """
        ahead = ahead if self.named("known") else 0
        needed = self.named("known") if only_ahead else self.named("past", "known")
        given = None if X is None else read_columns(X, long=long)
        if given is not None and not self.named("past", "known"):
            raise SeriesError("`X` is given, but the fit had none; leave it out or fit again.")
        if needed and given is None:
            rows = f"the {ahead} times after the readings" if only_ahead else "each reading"
            more = f", and {ahead} times after them" if ahead and not only_ahead else ""
            raise SeriesError(f"`X` is missing: give {', '.join(needed)} of {rows}{more}.")
        if given is not None:
            _check_keys(given, panel)
        statics = {} if static is None else _read_static(static, panel, long=long)
        series: dict[Hashable, TimeSeries] = {}
        for key, one in panel.series.items():
            before = None if known is None else known.series.get(key)
            if given is not None and needed:
                part = given.of(key, position=len(series))
                wanted = _times(one, ahead=ahead, only_ahead=only_ahead)
                values = _aligned(part, wanted, needed, key=key, ahead=ahead, given=given)
                one = replace(one, covariates=self._beside(one, values, only_ahead=only_ahead))
            elif not only_ahead:
                one = replace(one, covariates=np.empty((len(one), 0)))
            row = self._static_row(key, statics.get(key), before)
            series[key] = replace(one, static=row)
        return replace(panel, series=series)

    def table(self, series: TimeSeries, *, ahead: int = 0) -> Floats:
        """Return all columns of a series and the `ahead` times after it, `(T + ahead, columns)`."""
        length = len(series) + ahead
        numbers = self.numbers(series, ahead=ahead)
        static = np.broadcast_to(series.static, (length, len(series.static)))
        fields = self.named("cyclic")
        cyclic = np.empty((length, 0))
        if fields:
            times = _wall_clock(series.index)
            if ahead:
                times = np.concatenate((times, _wall_clock(future_index(series.index, ahead))))
            cyclic = calendar_columns(times, fields)
        return np.concatenate((numbers, static, cyclic), 1)

    def numbers(self, series: TimeSeries, *, ahead: int = 0) -> Floats:
        """Return the past and known columns alone, NaN where nothing is known."""
        numbers = np.full((len(series) + ahead, len(self.named("past", "known"))), np.nan)
        rows = series.covariates[: len(numbers)]
        numbers[: len(rows)] = rows
        return numbers

    def units(self, tables: Sequence[Floats], *, n_train: Sequence[int]) -> Units:
        """Return level and spread of the numbers among the columns of training readings."""
        numbers = len(self.columns) - len(self.named("cyclic"))
        rows = [table[:count, :numbers] for table, count in zip(tables, n_train, strict=True)]
        return find_column_units(rows)

    def _beside(self, one: TimeSeries, values: Floats, *, only_ahead: bool) -> Floats:
        if not only_ahead:
            return values
        # What is only known up to now is missing in the times after it.
        past = np.full((len(values), len(self.named("past"))), np.nan)
        return np.concatenate((one.covariates[: len(one)], np.concatenate((past, values), 1)))

    def _static_row(self, key: Hashable, row: Any, before: TimeSeries | None) -> Floats:
        columns = [column for column in self.columns if column.role == "static"]
        if row is None:
            if before is not None or not columns:
                return np.empty(0) if before is None else before.static
            raise SeriesError(
                f"`static` is missing for series {key!r}: give {', '.join(_names(columns))}."
            )
        lacking = [name for name in _names(columns) if name not in row.index]
        if lacking:
            raise SeriesError(f"`static` has no column {lacking[0]!r}; the fit had it.")
        for name in _names(columns):
            seen = {column.category for column in columns if column.name == name} - {None}
            if seen and str(row[name]) not in seen:
                warnings.warn(
                    f"`static` {name!r} of series {key!r} is {row[name]!r}, which no series of the "
                    f"fit was (of {', '.join(sorted(map(str, seen)))}); it is taken as none of "
                    "them.",
                    SeriesWarning,
                    stacklevel=4,
                )
        return np.array([_static_value(column, row[column.name]) for column in columns], float)


def learn(
    panel: Panel,
    X: Exogenous | None,
    static: Static | None,
    *,
    known_future: KnownFuture,
    calendar: Sequence[str],
    long: LongColumns,
) -> tuple[Covariates, Panel]:
    """Return the columns of a fit, and the panel with their values.

    Parameters
    ----------
    panel : Panel
        The readings.
    X, static
        As for `Covariates.attach`.
    known_future : "all" or sequence of str
        The columns of `X` that are known a horizon ahead.
    calendar : sequence of str
        Keys of `xlstm_ts.columns.PERIODS`.
    long : LongColumns
        Names of the columns of a long frame.

    Raises
    ------
    ValueError
        Where `known_future` or `calendar` names what there is not.
    SeriesError
        Where `X` or `static` cannot be used, or the calendar is asked for where readings are only
        counted.
    """
    names = [] if X is None else read_columns(X, long=long).names
    ahead = list(names) if known_future == "all" else _listed(known_future)
    unknown = [name for name in ahead if name not in names]
    if unknown:
        raise ValueError(
            f"`known_future` names {unknown[0]!r}, which is no column of `X` "
            f"({', '.join(names) or 'none is given'})."
        )
    fields = _listed(calendar)
    for field in fields:
        if field not in PERIODS:
            raise ValueError(f"`calendar` must be of {', '.join(PERIODS)}, got {field!r}.")
    if fields and not isinstance(panel.longest.index, TIMES):
        raise SeriesError("`calendar` needs times, but `y` only counts its readings; index it.")
    columns = (
        *(Column(name=name, role="past") for name in names if name not in ahead),
        *(Column(name=name, role="known") for name in names if name in ahead),
        *(() if static is None else _static_columns(static, panel, long=long)),
        *(Column(name=field, role="cyclic") for field in fields),
    )
    covariates = Covariates(columns=columns)
    return covariates, covariates.attach(panel, X, static, long=long)


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _check_keys(given: Columns, panel: Panel) -> None:
    for position, key in enumerate(panel.series):
        if not given.has(key, position=position):
            what = "not of one series, as `y` is" if key is None else f"without series {key!r}"
            raise SeriesError(f"`X` is {what}; give its columns by series and time as `y` is.")


def _times(one: TimeSeries, *, ahead: int, only_ahead: bool) -> pd.Index[Any]:
    """Return the times that values are asked for."""
    if not ahead:
        return one.index
    later = future_index(one.index, ahead)
    return later if only_ahead else one.index.append(later)


def _aligned(
    part: pd.DataFrame,
    wanted: pd.Index[Any],
    names: list[str],
    *,
    key: Hashable,
    ahead: int,
    given: Columns,
) -> Floats:
    """Return the values of columns at the times that are wanted; the last `ahead` must be there."""
    called = "X" if key is None else f"X` series `{key}"
    lacking = [name for name in names if name not in part.columns]
    if lacking:
        raise SeriesError(
            f"`{called}` has no column {', '.join(lacking)}; it has {', '.join(part.columns)}."
        )
    if given.is_array:
        if len(part) != len(wanted):
            raise SeriesError(
                f"`{called}` has {len(part)} rows, {len(wanted)} are needed: from {wanted[0]} to "
                f"{wanted[-1]}, one each."
            )
        return part[names].to_numpy()
    if part.index.has_duplicates:
        twice = part.index[part.index.duplicated()][0]
        raise SeriesError(f"`{called}` has the time {twice} more than once; keep one.")
    rows = part.index.get_indexer(wanted)
    absent = rows < 0
    if absent.all():
        raise SeriesError(
            f"`{called}` has none of the times that are needed, {wanted[0]} to {wanted[-1]}; it "
            f"goes from {part.index[0]} to {part.index[-1]}."
        )
    later = absent[len(wanted) - ahead :]
    if later.any():
        first = wanted[len(wanted) - ahead + int(later.argmax())]
        raise SeriesError(
            f"`{called}` lacks {', '.join(names)} at {int(later.sum())} of the {ahead} times after "
            f"the readings, first at {first}; give them, NaN where a value is not known."
        )
    if absent.any():
        warnings.warn(
            f"`{called}` leaves out {int(absent.sum())} of {len(wanted)} times; they are taken as "
            "missing.",
            SeriesWarning,
            stacklevel=5,
        )
    return part[names].reindex(wanted).to_numpy()


def _wall_clock(index: pd.Index[Any]) -> Any:
    stamps: Any = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    return stamps.tz_localize(None).to_numpy()


def _static_frame(static: Any, *, long: LongColumns) -> pd.DataFrame:
    if not isinstance(static, pd.DataFrame) or not len(static.columns):
        raise SeriesError("`static` must be a DataFrame, one row a series with its key as index.")
    frame = static.set_index(long.id) if long.id in static.columns else static
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise SeriesError(f"`static` has more than one row for series {twice!r}; keep one.")
    return frame.rename(columns=str)


def _read_static(static: Any, panel: Panel, *, long: LongColumns) -> dict[Hashable, Any]:
    frame: Any = _static_frame(static, long=long)
    if panel.is_single:
        raise SeriesError("`static` tells series apart, but `y` is a single one; leave it out.")
    return {key: frame.loc[key] for key in panel.series if key in frame.index}


def _static_columns(static: Any, panel: Panel, *, long: LongColumns) -> list[Column]:
    """Return a column for each number, and one for each category of the series."""
    rows, columns = _read_static(static, panel, long=long), list[Column]()
    frame = _static_frame(static, long=long).loc[list(rows)]
    for name in frame.columns:
        if frame[name].dtype.kind in "buif":
            columns.append(Column(name=name, role="static"))
        else:
            categories = sorted(map(str, frame[name].dropna().unique()))
            columns += [Column(name=name, role="static", category=each) for each in categories]
    return columns


def _static_value(column: Column, value: Any) -> float:
    if column.category is None:
        return float(value)
    return float(str(value) == column.category)


def _names(columns: Sequence[Column]) -> list[str]:
    return list(dict.fromkeys(column.name for column in columns))
