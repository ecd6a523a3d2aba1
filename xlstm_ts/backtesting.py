"""Judging a forecaster by what it would have said: forecasts from origins along each series."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from tqdm.auto import tqdm

from xlstm_ts.checks import check_integer
from xlstm_ts.evaluation import BATCH, fill_gaps, rolling_forecasts, seasonal_naive, targets
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.exogenous import Covariates, Exogenous, learn
from xlstm_ts.frames import read_panel
from xlstm_ts.metrics import seasonal_scale
from xlstm_ts.origins import Start, cut, find_origins
from xlstm_ts.panels import Floats, LongColumns, Panel, TimeSeries
from xlstm_ts.prediction import Prediction
from xlstm_ts.results import Backtest
from xlstm_ts.statics import Static
from xlstm_ts.transforms import check_domain

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

Series = ArrayLike | pd.Series | pd.DataFrame


def backtest(
    estimator: XLSTMForecaster,
    y: Series,
    X: Exogenous | None = None,
    *,
    static: Static | None = None,
    n_windows: int | None = None,
    start: Start | None = None,
    stride: int | None = None,
    refit: bool = False,
    verbose: int = 0,
) -> Backtest:
    """Forecast from origins along the end of each series, each from the readings before it.

    Parameters
    ----------
    estimator : XLSTMForecaster
        What to judge, fitted or not; a clone of it is fitted, and it stays as it is.
    y : array (T,), (T, C) or (S, T, C), Series, or DataFrame
        Readings in the order of time, of one series or of a panel, as for `fit`; NaN is missing.
    X, static : optional
        Covariates of these readings, as for `fit`. A forecast sees up to its origin those that are
        known up to now, and up to its horizon those of `known_future`.
    n_windows : int, optional
        Origins of each series; the last forecast ends with the series. Without it and `start`, 10.
    start : int, str, Timestamp or Period, optional
        The first origin of each series, instead of `n_windows`: the readings before it or, where
        `y` has times, the time of the first reading to forecast.
    stride : int, optional
        Readings from one origin to the next; without it the horizon.
    refit : bool, default=False
        Whether to fit anew for every window, on all readings before it. Otherwise the estimator is
        fitted once, on what precedes the first origins, and then only its context moves.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    Backtest
        Forecasts, truth, naive forecasts, and the table of their errors.

    Raises
    ------
    SeriesError
        Where `y` cannot be used, or no series is long enough for the windows and the fit before
        them.
    ValueError
        Where a parameter is out of range, or both `n_windows` and `start` are given.
    TypeError
        Where the estimator is another one.

    Warns
    -----
    SeriesWarning
        Where series of a panel are left out, of the fits too, with their number: they have no room
        for the windows, or nothing to go by before the first; and where a forecast is NaN because
        its context has no reading.

    Notes
    -----
    Origins are counted in each series by itself: by `n_windows` those of a series that ends early
    lie before those of the others. Where series tell of one another and their ends differ, give a
    time as `start`; then nothing after an origin is known to any fit.

    Examples
    --------
    >>> from xlstm_ts import XLSTMForecaster, backtest
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> y = make_sensor_stream(1000, random_state=0).readings
    >>> forecaster = XLSTMForecaster(horizon=24, max_steps=20, random_state=0)
    >>> list(backtest(forecaster, y, n_windows=4).table().index)
    ['XLSTMForecaster', 'naive', 'seasonal-naive']
    """
    if not isinstance(estimator, Prediction):
        raise TypeError(
            f"backtest takes an XLSTMForecaster, got {type(estimator).__name__}; for others use "
            "the searches and splitters of their own library."
        )
    check_integer("horizon", estimator.horizon, least=1)
    horizon = int(estimator.horizon)
    stride = horizon if stride is None else stride
    check_integer("stride", stride, least=1)
    columns = LongColumns(estimator.id_column, estimator.time_column, estimator.target_column)
    covariates, panel = learn(
        read_panel(y, long=columns),
        X,
        static,
        known_future=estimator.known_future,
        calendar=estimator.calendar,
        long=columns,
    )
    panel, origins = find_origins(
        panel,
        horizon=horizon,
        n_windows=n_windows,
        start=start,
        stride=stride,
    )
    first, quantiles = _roll(
        _Fit(estimator, covariates, static),
        panel,
        origins=origins,
        stride=stride,
        refit=refit,
        verbose=verbose,
    )
    season = first.season_length_
    windows = list(zip(panel, origins, strict=True))
    naive, seasonal = (
        np.concatenate([_repeated(*each, horizon=horizon, season=m) for each in windows])
        for m in (1, season)
    )
    return Backtest(
        name=type(estimator).__name__,
        panel=panel,
        owners=np.repeat(np.arange(len(origins)), [len(each) for each in origins]),
        origins=np.concatenate(origins),
        levels=first.model_.config.quantiles,
        quantiles=quantiles,
        truth=np.concatenate(
            [targets(one.values, origins=each, horizon=horizon) for one, each in windows]
        ),
        naive=naive,
        seasonal_naive=seasonal,
        season=season,
        scale=np.stack([seasonal_scale(one.values[: o[0]], season=season) for one, o in windows]),
    )


class _Fit(NamedTuple):
    """What is fitted, with the covariates of its series."""

    estimator: XLSTMForecaster
    covariates: Covariates
    static: Static | None

    def on(self, known: Panel) -> XLSTMForecaster:
        """Return a clone fitted on the readings before an origin alone."""
        names = self.covariates.named("past", "known")
        y = _framed(known, [one.values for one in known], list(known.channels))
        X = [self.covariates.numbers(one) for one in known]
        try:
            copied: Any = clone(self.estimator)
            return copied.fit(y, _framed(known, X, names) if names else None, static=self.static)
        except SeriesError as err:
            raise SeriesError(
                f"No fit on the {len(known.longest)} readings before an origin: {err} In a "
                "backtest, fewer windows or a later `start` leave more."
            ) from err


def _framed(panel: Panel, tables: list[Floats], names: list[str]) -> pd.DataFrame:
    """Return a table of each series as one frame, by series and time."""
    frames = [
        pd.DataFrame(table, one.index, names) for one, table in zip(panel, tables, strict=True)
    ]
    return frames[0] if panel.is_single else pd.concat(frames, keys=list(panel.series))


def _roll(
    fit: _Fit,
    panel: Panel,
    *,
    origins: list[NDArray[np.int64]],
    stride: int,
    refit: bool,
    verbose: int,
) -> tuple[XLSTMForecaster, Floats]:
    """Return the estimator of the first fit, and the quantiles from every origin."""
    first = fitted = fit.on(cut(panel, [each[0] for each in origins]))
    check_domain(panel, first.model_.config.target_transform)
    windows = np.arange(max(map(len, origins)))
    size = 1 if refit else BATCH
    parts: list[list[Floats]] = [[] for _ in origins]
    with tqdm(total=sum(map(len, origins)), disable=verbose < 1, desc="backtest") as bar:
        for group in np.split(windows, np.arange(size, len(windows), size)):
            if refit and group[0] > 0:
                fitted = fit.on(cut(panel, [o[0] + stride * group[0] for o in origins]))
            for key, each, part in zip(panel.series, origins, parts, strict=True):
                here = each[group[group < len(each)]]
                if len(here):
                    # The categories of a fit are those of its own series.
                    static = fitted.context_.series[key].static
                    one = replace(panel.series[key], static=static)
                    part.append(_forecast(fitted, one, origins=here))
                    bar.update(len(here))
    quantiles = np.concatenate([np.concatenate(part) for part in parts])
    _warn_of_silence(quantiles, context_length=first.context_length_)
    return first, quantiles


def _forecast(fitted: XLSTMForecaster, one: TimeSeries, *, origins: NDArray[np.int64]) -> Floats:
    return rolling_forecasts(
        fitted.model_,
        one.values,
        origins=origins,
        covariates=fitted.covariates_.table(one, ahead=fitted.model_.config.horizon),
        context_length=fitted.context_length_,
        own_units=fitted.pooled_,
    )


def _repeated(one: TimeSeries, origins: NDArray[np.int64], *, horizon: int, season: int) -> Floats:
    filled = fill_gaps(one.values, season=season)
    return seasonal_naive(filled, origins=origins, horizon=horizon, season=season)


def _warn_of_silence(quantiles: Floats, *, context_length: int) -> None:
    silent = int(np.isnan(quantiles).any((1, 2, 3)).sum())
    if silent:
        warnings.warn(
            f"{silent} of {len(quantiles)} forecasts have a channel without a reading in their "
            f"context of {context_length}: they are NaN there and do not count.",
            SeriesWarning,
            stacklevel=4,
        )
