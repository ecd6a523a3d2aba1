"""What to do about an index or a column that cannot be used: a cure in pandas for each case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

COUNT = "y.reset_index(drop=True) to count readings"
# Steps that people and machines choose; stamps that jitter are meant to have one of them.
COMMON = "1ms 10ms 100ms 1s 5s 10s 15s 30s 1min 5min 10min 15min 30min 1h 2h 3h 6h 12h 1D"


def for_kind_of_index(index: pd.Index[Any]) -> str:
    """Return what makes an index of the wrong kind one of times or of integers."""
    if isinstance(index, pd.TimedeltaIndex):
        return f"add the time of the start, y.index += pandas.Timestamp(...), or use {COUNT}"
    if index.dtype.kind == "f":
        return (
            "use y.index = y.index.astype(int) if it holds whole numbers, "
            f"pandas.to_datetime(y.index, unit='s') if it holds unix seconds, or {COUNT}"
        )
    return f"use y.index = pandas.to_datetime(y.index) if it holds times, or {COUNT}"


def for_kind_of_column(column: pd.Series[Any], *, of: str) -> str:
    """Return what to do with a column, of `y` or `X`, that holds no real numbers."""
    name = column.name
    if column.dtype.kind == "M":
        return f"if it is the time of the readings use {of}.set_index({name!r}), else drop it"
    if column.dtype.kind == "m":
        return "convert it with .dt.total_seconds() or drop it"
    if column.dtype.kind == "c":
        return "give its real and its imaginary part as two columns, or drop it"
    if pd.api.types.is_string_dtype(column.dtype):
        return (
            "convert it with pandas.to_numeric or drop it; if it is the time of the readings use "
            f"{of}.index = pandas.to_datetime({of}.pop({name!r})); if it names the series, make it "
            "and the time the index with set_index, or name the columns to XLSTMForecaster: "
            "id_column, time_column and target_column"
        )
    return "convert it with pandas.to_numeric or drop it"


def for_irregular_stamps(index: pd.DatetimeIndex) -> str:
    """Return what gives increasing stamps one step and loses no reading."""
    period = _period(index)
    if period:
        return f"name the period of each reading: y.to_period({period!r})"
    step = _meant_step(index)
    resample = f"y.resample({step!r}).mean()"
    if step in ("1D", "W", "MS") or _utc(index).round(step).has_duplicates:
        return f"the stamps lie on no grid, so resample: {resample}"
    return (
        f"the stamps lie on no grid, so round them, y.index = y.index.round({step!r}), "
        f"or resample: {resample}"
    )


def _period(index: pd.DatetimeIndex) -> str | None:
    """Return the period of the calendar of which each holds one reading, and none is left out."""
    for period in ("M", "Q", "Y"):
        numbers = index.tz_localize(None).to_period(period).astype(np.int64)
        if (numbers[1:] - numbers[:-1] == 1).all():
            return period
    return None


def _meant_step(index: pd.DatetimeIndex) -> str:
    """Return the common step nearest to the median one."""
    usual = pd.Series(index[1:] - index[:-1]).median()
    if usual > pd.Timedelta(days=18):
        return "MS"
    if usual > pd.Timedelta(days=4):
        return "W"
    return min(COMMON.split(), key=lambda step: abs(np.log(pd.Timedelta(step) / usual)))


def _utc(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the stamps without a zone, in which every hour occurs once."""
    return index if index.tz is None else index.tz_convert(None)
