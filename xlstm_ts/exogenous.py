"""Covariates from outside: columns of X, what is said of each series, fields of the calendar.

`learn` settles at a fit which columns there are; `Covariates.attach` puts their values beside the
readings of a panel, and checks them; `Covariates.table` lays them out as the model reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from xlstm_ts.calendars import calendar_columns
from xlstm_ts.columns import PERIODS, Column
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import Columns, read_columns
from xlstm_ts.panels import Floats, LongColumns, Panel, TimeSeries
from xlstm_ts.statics import Static, names_of, read_static, static_columns, static_numbers
from xlstm_ts.steps import TIMES, future_index
from xlstm_ts.units import Units, find_column_units

Exogenous = ArrayLike | pd.Series | pd.DataFrame
COUNTED = "`calendar` needs times, but `y` only counts its readings; index it."
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
        later = self.named("known") if ahead else []
        now = [] if only_ahead else self.named("past", "known")
        wanted = _Wanted(now, later, ahead if later else 0)
        given = None if X is None else read_columns(X, long=long)
        self._check_given(given, static, wanted)
        counted = [key for key, one in panel.series.items() if not isinstance(one.index, TIMES)]
        if self.named("cyclic") and set(counted) - set(known.series if known else ()):
            raise SeriesError(COUNTED)
        if self.named("cyclic") and known is not None:
            check_zone(panel.longest.index, known.longest.index)
        if given is not None:
            _check_keys(given, panel)
        statics = {} if static is None else read_static(static, panel, long=long)
        series: dict[Hashable, TimeSeries] = {}
        for key, one in panel.series.items():
            before = None if known is None else known.series.get(key)
            if given is not None and wanted.names:
                part = given.of(key, position=len(series))
                values = _aligned(part, one, wanted, key=key, by_position=given.is_array)
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
        return np.concatenate((numbers, static, self._cyclic(series, ahead=ahead)), 1)

    def parts(self, series: TimeSeries) -> tuple[Floats, Floats, int]:
        """Return columns that change `(T, ...)`, static ones, and after how many these come."""
        numbers = self.numbers(series)
        changing = np.concatenate((numbers, self._cyclic(series)), 1)
        return changing, series.static, numbers.shape[1]

    def _cyclic(self, series: TimeSeries, *, ahead: int = 0) -> Floats:
        fields = self.named("cyclic")
        if not fields:
            return np.empty((len(series) + ahead, 0))
        times = _wall_clock(series.index)
        if ahead:
            times = np.concatenate((times, _wall_clock(future_index(series.index, ahead))))
        return calendar_columns(times, fields)

    def numbers(self, series: TimeSeries, *, ahead: int = 0) -> Floats:
        """Return the past and known columns alone, NaN where nothing is known."""
        numbers = np.full((len(series) + ahead, len(self.named("past", "known"))), np.nan)
        rows = series.covariates[: len(numbers)]
        numbers[: len(rows)] = rows
        return numbers

    def units(self, panel: Panel, *, n_train: Sequence[int]) -> Units:
        """Return level and spread of the numbers: over training readings, or their series.

        Raises
        ------
        SeriesError
            Where a column has no value among them.
        """
        numbers = self.columns[: len(self.columns) - len(self.named("cyclic"))]
        trained = [(one, count) for one, count in zip(panel, n_train, strict=True) if count]
        rows = np.concatenate([self.numbers(one)[:count] for one, count in trained])
        static = np.stack([one.static for one, _ in trained])
        silent = np.concatenate([np.isnan(each).all(0) for each in (rows, static)])
        if silent.any():
            column = numbers[int(silent.argmax())]
            raise SeriesError(
                f"`{'static' if column.role == 'static' else 'X'}` column {column.name!r} has no "
                "value among the readings to train on, only NaN; drop it."
            )
        parts = zip(find_column_units(rows), find_column_units(static), strict=True)
        return Units(*(np.concatenate(part, 1) for part in parts))

    def _beside(self, one: TimeSeries, values: Floats, *, only_ahead: bool) -> Floats:
        if not only_ahead:
            return values
        # What is only known up to now is missing in the times after it.
        past = np.full((len(values), len(self.named("past"))), np.nan)
        return np.concatenate((one.covariates[: len(one)], np.concatenate((past, values), 1)))

    def _check_given(self, given: Columns | None, static: Static | None, wanted: _Wanted) -> None:
        """Refuse what the fit did not have, and ask for what it had."""
        if given is not None and not self.named("past", "known"):
            raise SeriesError("`X` is given, but the fit had none; leave it out or fit again.")
        if given is not None and not wanted.names:
            raise SeriesError(
                "`X` is given, but its columns are known up to now alone, and those of the context "
                "are there; leave it out."
            )
        if static is not None and not self.named("static"):
            raise SeriesError("`static` is given, but the fit had none; leave it out or fit again.")
        if given is None and wanted.names:
            raise SeriesError(f"`X` is missing: give {wanted}.")

    def _static_row(self, key: Hashable, row: Any, before: TimeSeries | None) -> Floats:
        columns = [column for column in self.columns if column.role == "static"]
        if row is not None:
            return static_numbers(columns, row, key=key)
        if before is not None:
            return before.static
        if columns and key is None:
            raise SeriesError(
                "`static` tells series apart, but `y` is a single one; name it by "
                "pandas.concat({'key': y})."
            )
        if columns:
            names = ", ".join(names_of(columns))
            raise SeriesError(f"`static` is missing for series {key!r}: give {names}.")
        return np.empty(0)


class _Wanted(NamedTuple):
    """Columns that are asked for: those of the readings, and those of the times after them."""

    now: list[str]
    later: list[str]
    ahead: int

    def __str__(self) -> str:
        now = f"{', '.join(self.now)} of each reading"
        later = f"{', '.join(self.later)} of the {self.ahead} times after"
        if not self.now:
            return f"{later} the readings"
        return f"{now}, and {later} them" if self.ahead else now

    @property
    def names(self) -> list[str]:
        """Names of all of them."""
        return self.now or self.later

    def times(self, one: TimeSeries) -> pd.Index[Any]:
        """Return the times that values of a series are asked for."""
        if not self.ahead:
            return one.index
        later = future_index(one.index, self.ahead)
        return one.index.append(later) if self.now else later


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
    ahead = names if _is_all(known_future) else _listed("known_future", known_future)
    unknown = [name for name in ahead if name not in names]
    if unknown:
        raise ValueError(
            f"`known_future` names {unknown[0]!r}, which is no column of `X` "
            f"({', '.join(names) or 'none is given'})."
        )
    fields = _listed("calendar", calendar)
    for field in fields:
        if field not in PERIODS:
            raise ValueError(f"`calendar` must be of {', '.join(PERIODS)}, got {field!r}.")
    columns = (
        *(Column(name=name, role="past") for name in names if name not in ahead),
        *(Column(name=name, role="known") for name in names if name in ahead),
        *(() if static is None else static_columns(static, panel, long=long)),
        *(Column(name=field, role="cyclic") for field in fields),
    )
    twice = {c.name for c in columns if c.role == "static"} & set(names)
    if twice:
        raise SeriesError(f"`static` and `X` both have a column {min(twice)!r}; rename one.")
    covariates = Covariates(columns=columns)
    return covariates, covariates.attach(panel, X, static, long=long)


def check_zone(index: pd.Index[Any], known: pd.Index[Any]) -> None:
    """Refuse times of another zone: by the calendar they are others."""
    zones = [getattr(each, "tz", None) for each in (index, known)]
    if isinstance(index, TIMES) and str(zones[0]) != str(zones[1]):
        raise SeriesError(
            f"`y` has the time zone {zones[0]}, the calendar of the fit goes by {zones[1]}; "
            "convert it by y.tz_convert(...), or y.tz_localize(...) where it has none."
        )


def _is_all(names: KnownFuture) -> bool:
    return isinstance(names, str) and names == "all"


def _listed(parameter: str, names: str | Sequence[str]) -> list[str]:
    """Return names once each, as text: so the columns of `X` are called."""
    try:
        listed = [names] if isinstance(names, str) else list(names)
    except TypeError as err:
        raise ValueError(f"`{parameter}` must be a sequence of names, got {names!r}.") from err
    return list(dict.fromkeys(map(str, listed)))


def _check_keys(given: Columns, panel: Panel) -> None:
    if given.is_array and len(given.parts) != len(panel.series):
        raise SeriesError(
            f"`X` is an array of {len(given.parts)} series, `y` of {len(panel.series)}; give one "
            "for each."
        )
    for position, key in enumerate(panel.series):
        if not given.has(key, position=position):
            what = "not of one series, as `y` is" if key is None else f"without series {key!r}"
            raise SeriesError(f"`X` is {what}; give its columns by series and time as `y` is.")


def _aligned(
    part: pd.DataFrame, one: TimeSeries, wanted: _Wanted, *, key: Hashable, by_position: bool
) -> Floats:
    """Return the values of columns at the times that are wanted; the last ones must be there."""
    called = "X" if key is None else f"X` series `{key}"
    names, times = wanted.names, wanted.times(one)
    lacking = [name for name in names if name not in part.columns]
    if lacking:
        raise SeriesError(
            f"`{called}` has no column {', '.join(lacking)}; it has {', '.join(part.columns)}."
        )
    if by_position:
        if len(part) != len(times):
            raise SeriesError(
                f"`{called}` has {len(part)} rows, {len(times)} are needed: from {times[0]} to "
                f"{times[-1]}, one each."
            )
        return part[names].to_numpy()
    if part.index.has_duplicates:
        twice = part.index[part.index.duplicated()][0]
        raise SeriesError(f"`{called}` has the time {twice} more than once; keep one.")
    _check_there(part.index, times, wanted, name=called)
    return part[names].reindex(times).to_numpy()


def _check_there(given: pd.Index[Any], times: pd.Index[Any], wanted: _Wanted, *, name: str) -> None:
    absent = given.get_indexer(times) < 0
    if absent.all():
        raise SeriesError(
            f"`{name}` has none of the times that are needed, {times[0]} to {times[-1]}; it goes "
            f"from {given[0]} to {given[-1]}."
        )
    later = absent[len(times) - wanted.ahead :]
    if later.any():
        first = times[len(times) - wanted.ahead + int(later.argmax())]
        raise SeriesError(
            f"`{name}` lacks {', '.join(wanted.later)} at {int(later.sum())} of the {wanted.ahead} "
            f"times after the readings, first at {first}; give them, NaN where a value is not "
            "known."
        )
    if absent.any():
        warnings.warn(
            f"`{name}` leaves out {int(absent.sum())} of {len(times)} times; they are taken as "
            "missing.",
            SeriesWarning,
            stacklevel=6,
        )


def _wall_clock(index: pd.Index[Any]) -> Any:
    if not isinstance(index, TIMES):
        raise SeriesError(COUNTED)
    stamps: Any = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    return stamps.tz_localize(None).to_numpy()
