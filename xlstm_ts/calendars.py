"""Fields of the calendar as numbers, for estimators and streams alike. Needs numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def calendar_columns(times: NDArray[np.datetime64], fields: Sequence[str]) -> NDArray[np.float64]:
    """Return fields of the wall-clock time, counted as pandas counts them; hours with a fraction.

    Parameters
    ----------
    times : ndarray of datetime64, shape (...)
        Times without a zone.
    fields : sequence of str
        Keys of `xlstm_ts.columns.PERIODS`.

    Returns
    -------
    ndarray of float64, shape (..., fields)
        Whole numbers, but for the hour, of which the minutes are a fraction: the day of a series
        of ten minutes has no steps. NaN where there is no time.
    """
    days, months = times.astype("M8[D]"), times.astype("M8[M]")
    years = times.astype("M8[Y]")
    minutes = (times.astype("M8[m]") - days).astype("m8[m]")
    numbers: dict[str, Callable[[], NDArray[np.int64] | NDArray[np.float64]]] = {
        "minute": lambda: minutes.astype(np.int64) % 60,
        "hour": lambda: minutes.astype(np.int64) / 60,
        "dayofweek": lambda: (days.astype(np.int64) + 3) % 7,  # the epoch began on a Thursday
        "day": lambda: (days - months.astype("M8[D]")).astype(np.int64) + 1,
        "dayofyear": lambda: (days - years.astype("M8[D]")).astype(np.int64) + 1,
        "month": lambda: (months - years.astype("M8[M]")).astype(np.int64) + 1,
    }
    columns = [np.where(np.isnat(times), np.nan, numbers[field]()) for field in fields]
    return np.stack(columns, -1) if columns else np.empty((*times.shape, 0))
