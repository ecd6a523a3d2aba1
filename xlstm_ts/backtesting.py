"""Judging a forecaster by what it would have said: forecasts from origins along a series."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from tqdm.auto import tqdm

from xlstm_ts.checks import check_integer
from xlstm_ts.evaluation import BATCH, fill_gaps, rolling_forecasts, seasonal_naive, targets
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.frames import read_panel
from xlstm_ts.metrics import seasonal_scale
from xlstm_ts.panels import Floats
from xlstm_ts.results import Backtest

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

Series = ArrayLike | pd.Series | pd.DataFrame
USUAL_WINDOWS = 10


def backtest(
    estimator: XLSTMForecaster,
    y: Series,
    *,
    n_windows: int | None = None,
    start: int | str | pd.Timestamp | pd.Period | None = None,
    stride: int | None = None,
    refit: bool = False,
    verbose: int = 0,
) -> Backtest:
    """Forecast from origins along the end of a series, each from the readings before it.

    Parameters
    ----------
    estimator : XLSTMForecaster
        What to judge, fitted or not; a clone of it is fitted, and it stays as it is.
    y : array (T,) or (T, C), Series, or wide DataFrame
        Readings in the order of time; NaN is missing.
    n_windows : int, optional
        Origins; the last forecast ends with the series. Without it and `start`, 10.
    start : int, str, Timestamp or Period, optional
        The first origin, instead of `n_windows`: the readings before it or, where `y` has times,
        the time of the first reading to forecast.
    stride : int, optional
        Readings from one origin to the next; without it the horizon.
    refit : bool, default=False
        Whether to fit anew at every origin, on all readings before it. Otherwise the estimator is
        fitted once, on what precedes the first origin, and then only its context moves.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    Backtest
        Forecasts, truth, naive forecasts, and the table of their errors.

    Raises
    ------
    SeriesError
        Where `y` cannot be used, or is too short for the windows and the fit before them.
    ValueError
        Where a parameter is out of range, or both `n_windows` and `start` are given.

    Examples
    --------
    >>> from xlstm_ts import XLSTMForecaster, backtest
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> y = make_sensor_stream(1000, random_state=0).readings
    >>> forecaster = XLSTMForecaster(horizon=24, max_steps=20, random_state=0)
    >>> list(backtest(forecaster, y, n_windows=4).table().index)
    ['XLSTMForecaster', 'naive', 'seasonal-naive']
    """
    check_integer("horizon", estimator.horizon, least=1)
    readings, horizon = _read(y), int(estimator.horizon)
    origins = _origins(
        readings.index, horizon=horizon, n_windows=n_windows, start=start, stride=stride
    )
    first, quantiles = _roll(estimator, readings, origins=origins, refit=refit, verbose=verbose)
    values = readings.to_numpy()
    season = first.season_length_
    known = values[: origins[0]]
    if len(known) < season:
        raise SeriesError(
            f"`y` has {len(known)} readings before the first origin, fewer than its season "
            f"({season}), which seasonal-naive repeats; give fewer windows or a later `start`."
        )
    naive, seasonal = (
        seasonal_naive(fill_gaps(values, season=m), origins=origins, horizon=horizon, season=m)
        for m in (1, season)
    )
    return Backtest(
        name=type(estimator).__name__,
        channels=tuple(readings.columns),
        index=readings.index,
        origins=origins,
        levels=first.model_.config.quantiles,
        quantiles=quantiles,
        truth=targets(values, origins=origins, horizon=horizon),
        naive=naive,
        seasonal_naive=seasonal,
        season=season,
        scale=seasonal_scale(known, season=season),
    )


def _read(y: Series) -> pd.DataFrame:
    """Return the checked readings by time, one column a channel: origins are rows of it."""
    panel = read_panel(y)
    if not panel.is_single:
        raise SeriesError("A backtest is of one series; give them one at a time.")
    return pd.DataFrame(panel.longest.values, panel.longest.index, list(panel.channels))


def _origins(
    index: pd.Index[Any],
    *,
    horizon: int,
    n_windows: int | None,
    start: int | str | pd.Timestamp | pd.Period | None,
    stride: int | None,
) -> NDArray[np.int64]:
    """Return the readings known at each origin, the last a horizon or less than a stride away."""
    stride = horizon if stride is None else stride
    n_windows = USUAL_WINDOWS if n_windows is None and start is None else n_windows
    check_integer("stride", stride, least=1)
    if start is not None and n_windows is not None:
        raise ValueError(f"Give `n_windows` ({n_windows}) or `start` ({start}), not both.")
    last = len(index) - horizon
    if n_windows is not None:
        check_integer("n_windows", n_windows, least=1)
        origins = np.arange(last - stride * (n_windows - 1), last + 1, stride)
    else:
        origins = np.arange(_first_origin(start, index), last + 1, stride)
    if not len(origins) or origins[0] < 1:
        raise SeriesError(
            f"`y` has {len(index)} readings, too few for {n_windows or 1} forecasts of {horizon} "
            "with readings before them; give more readings, fewer windows or another `start`."
        )
    return origins


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


def _roll(
    estimator: XLSTMForecaster,
    readings: pd.DataFrame,
    *,
    origins: NDArray[np.int64],
    refit: bool,
    verbose: int,
) -> tuple[XLSTMForecaster, Floats]:
    """Return the estimator of the first fit, and the quantiles from every origin."""
    first = fitted = _fit(estimator, readings.iloc[: origins[0]])
    size, parts = 1 if refit else BATCH, list[Floats]()
    with tqdm(total=len(origins), disable=verbose < 1, desc="backtest") as bar:
        for group in np.split(origins, np.arange(size, len(origins), size)):
            if refit and group[0] > origins[0]:
                fitted = _fit(estimator, readings.iloc[: group[0]])
            parts.append(_forecast(fitted, readings.to_numpy(), origins=group))
            bar.update(len(group))
    return first, np.concatenate(parts)


def _fit(estimator: XLSTMForecaster, known: pd.DataFrame) -> XLSTMForecaster:
    """Return a clone fitted on the readings before an origin alone."""
    try:
        return clone(estimator).fit(known)
    except SeriesError as err:
        raise SeriesError(
            f"No fit on the {len(known)} readings before an origin: {err} In a backtest, fewer "
            "windows or a later `start` leave more."
        ) from err


def _forecast(fitted: XLSTMForecaster, values: Floats, *, origins: NDArray[np.int64]) -> Floats:
    return rolling_forecasts(
        fitted.model_, values, origins=origins, context_length=fitted.context_length_
    )
