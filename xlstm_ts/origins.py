"""Where a backtest forecasts from, and which series of a panel it can judge."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.panels import Panel
from xlstm_ts.seasons import season_length

Start = int | str | pd.Timestamp | pd.Period
USUAL_WINDOWS = 10


def find_origins(
    panel: Panel,
    *,
    horizon: int,
    n_windows: int | None,
    start: Start | None,
    stride: int,
) -> tuple[Panel, list[NDArray[np.int64]]]:
    """Return the series that can be judged, and the origins of each: readings known before it.

    Parameters
    ----------
    panel : Panel
        One series or many.
    horizon, n_windows, start, stride
        As `xlstm_ts.backtest` takes them.

    Raises
    ------
    SeriesError
        Where no series has room for its windows, with a season known before them.
    ValueError
        Where a parameter is out of range, or both `n_windows` and `start` are given.

    Warns
    -----
    SeriesWarning
        Where some series of several are left out, with their number.
    """
    if start is not None and n_windows is not None:
        raise ValueError(f"Give `n_windows` ({n_windows}) or `start` ({start}), not both.")
    if start is None:
        n_windows = USUAL_WINDOWS if n_windows is None else n_windows
        check_integer("n_windows", n_windows, least=1)
    found: dict[Hashable, NDArray[np.int64]] = {}
    errors = []
    for key, one in panel.series.items():
        last = len(one) - horizon
        if n_windows is None:
            first = _first_origin(start, one.index)
        else:
            first = last - stride * (n_windows - 1)
        try:
            _check_known(panel, key, first=first, last=last, n_windows=n_windows)
        except SeriesError as err:
            errors.append(err)
        else:
            found[key] = np.arange(first, last + 1, stride)
    return _of_whole_seasons(panel, found, errors=errors)


def cut(panel: Panel, ends: Sequence[int]) -> Panel:
    """Return the readings of each series before its end."""
    series = {
        key: one.first(end) for (key, one), end in zip(panel.series.items(), ends, strict=True)
    }
    return replace(panel, series=series)


def _first_origin(start: Any, index: pd.Index[Any]) -> int:
    """Return the readings before a time, or the number of them that was given."""
    if isinstance(start, Integral) or not isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        check_integer("start", start, least=1)
        return int(start)
    try:
        return index.slice_indexer(start).start or 0
    except (TypeError, ValueError) as err:
        raise ValueError(
            f"`start` must be a number of readings or a time of {index.dtype}, got {start!r}."
        ) from err


def _check_known(
    panel: Panel, key: Hashable, *, first: int, last: int, n_windows: int | None
) -> None:
    """Refuse a series without room for its windows, or with nothing known before them."""
    one = panel.series[key]
    if not 1 <= first <= last:
        raise SeriesError(
            f"{_called(key)} has {len(one)} readings, too few for {n_windows or 1} forecasts of "
            f"{len(one) - last} with readings before them; give more readings, fewer windows or "
            "another `start`."
        )
    silent = np.isnan(one.values[:first]).all(0)
    if silent.any():
        raise SeriesError(
            f"{_called(key)} column {panel.channels[int(silent.argmax())]!r} has no reading before "
            f"its first origin ({one.index[first]}); give fewer windows or a later `start`."
        )


def _of_whole_seasons(
    panel: Panel, origins: dict[Hashable, NDArray[np.int64]], *, errors: list[SeriesError]
) -> tuple[Panel, list[NDArray[np.int64]]]:
    """Leave out the series that seasonal-naive cannot forecast, and say how many all in all are."""
    season = 1
    if origins:
        ends = [each[0] for each in origins.values()]
        season = season_length(cut(_part(panel, origins), ends))
    short = {key: each[0] for key, each in origins.items() if each[0] < season}
    errors = errors + [
        SeriesError(
            f"{_called(key)} has {first} readings before the first origin, fewer than its season "
            f"({season}), which seasonal-naive repeats; give fewer windows or a later `start`."
        )
        for key, first in short.items()
    ]
    judged = {key: each for key, each in origins.items() if key not in short}
    if not judged:
        raise errors[0]
    if errors:
        warnings.warn(
            f"{len(errors)} of {len(panel.series)} series are left out of the backtest and of "
            f"its fits: {errors[0]}",
            SeriesWarning,
            stacklevel=4,
        )
    return _part(panel, judged), list(judged.values())


def _called(key: Hashable) -> str:
    return "`y`" if key is None else f"`y` series `{key}`"


def _part(panel: Panel, keys: Iterable[Hashable]) -> Panel:
    return replace(panel, series={key: panel.series[key] for key in keys})
