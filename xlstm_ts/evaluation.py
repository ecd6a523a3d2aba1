"""Forecasts from many origins of one series, and what to hold them against."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from xlstm_ts.config import Transform
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import Floats, TimeSeries
from xlstm_ts.transforms import transformed
from xlstm_ts.units import find_units

BATCH = 256


def rolling_forecasts(
    model: XLSTM,
    values: Floats,
    *,
    origins: NDArray[np.int64],
    context_length: int,
    own_units: bool = False,
    covariates: Floats | None = None,
) -> Floats:
    """Forecast from each origin with the `context_length` readings up to it, from a cold start.

    Parameters
    ----------
    model : XLSTM
        A trained model.
    values : ndarray of float64, shape (T, C)
        Raw readings; NaN is missing.
    origins : ndarray of int, shape (N,)
        Number of readings known at each origin: `values[:origin]`, at least 1.
    context_length : int
        Most readings that a forecast sees; before the first reading everything is missing.
    own_units : bool
        Put each window in the units of its own readings, for a model of many series. A channel
        without a reading in it is then forecast as NaN.
    covariates : ndarray of float64, shape (T + A, K), optional
        Raw columns of the readings and of those after them; what is left out is missing.

    Returns
    -------
    ndarray of float64, shape (N, H, C, Q)
        Forecasts of the readings from each origin on.
    """
    windows = _windows(values, context_length, before=context_length)
    columns = _covariate_windows(model, covariates, context_length, last=int(origins.max()))
    device = model.center.device
    forecasts = []
    with torch.inference_mode():
        for start in range(0, len(origins), BATCH):
            now = origins[start : start + BATCH]
            part = windows[now]
            readings = torch.as_tensor(part, device=device)
            beside = None if columns is None else torch.as_tensor(columns[now], device=device)
            units = _units(part, model.config.target_transform, device) if own_units else None
            forecast = model.forecast(readings, beside, units).cpu().numpy()
            if own_units:  # nothing tells the level of a window without a reading
                silent = np.asarray(np.isnan(part).all(1))
                forecast[silent[:, None].repeat(forecast.shape[1], 1)] = np.nan
            forecasts.append(forecast)
    return np.concatenate(forecasts)


def _units(
    windows: Floats, transform: Transform, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return center and spread of each window, `(N, C)`."""
    units = find_units(transformed(windows, transform))
    center, spread = (torch.as_tensor(part[:, 0], device=device) for part in units)
    return center, spread


def _windows(values: Floats, length: int, *, before: int, after: int = 0) -> Floats:
    """Return a view of windows `(N, length, C)`, with nothing before and after the values."""
    padded = np.pad(values, ((before, after), (0, 0)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, length, axis=0).swapaxes(1, 2)


def _covariate_windows(
    model: XLSTM, covariates: Floats | None, context_length: int, *, last: int
) -> Floats | None:
    """Return windows of context and horizon, by origin up to the last one."""
    if covariates is None or not model.config.n_columns:
        return None
    length = context_length + model.config.horizon
    after = max(0, last + model.config.horizon - len(covariates))
    return _windows(covariates, length, before=context_length, after=after)


def seasonal_naive(
    values: Floats, *, origins: NDArray[np.int64], horizon: int, season: int
) -> Floats:
    """Return the readings of the last whole season before each origin, repeated: `(N, H, C)`.

    Raises
    ------
    ValueError
        Where an origin has no whole season before it.
    """
    if origins.min() < season:
        raise ValueError(f"`origins` must be at least `season` ({season}), got {origins.min()}.")
    return values[origins[:, None] - season + np.arange(horizon) % season]


def fill_gaps(values: Floats, *, season: int) -> Floats:
    """Return readings with each gap filled from the season before it, never from after it.

    Parameters
    ----------
    values : ndarray of float64, shape (T, C)
        Raw readings; NaN is missing.
    season : int
        Readings in a season; 1 repeats the last reading.

    Returns
    -------
    ndarray of float64, shape (T, C)
        NaN stays where no season before has a reading.
    """
    phase = np.arange(len(values)) % season
    return pd.DataFrame(values).groupby(phase).ffill().to_numpy()


def targets(values: Floats, *, origins: NDArray[np.int64], horizon: int) -> Floats:
    """Return the readings that came after each origin: `(N, H, C)`."""
    return values[origins[:, None] + np.arange(horizon)]


def skill(forecast: Floats, naive: Floats, truth: Floats) -> float:
    """Return 1 - MAE / MAE of a naive forecast, averaged over channels; all `(N, H, C)`.

    Only readings count that are there and that both forecast, and only channels in which the naive
    forecast errs at all: beside a perfect one every ratio would be infinite. NaN where there is
    none.
    """
    comparable = ~np.isnan(naive + truth + forecast)
    errors, naive_errors = (
        np.where(comparable, np.abs(guess - truth), 0).sum((0, 1)) for guess in (forecast, naive)
    )
    scored = naive_errors > 0
    return float(np.mean(1 - errors[scored] / naive_errors[scored])) if scored.any() else np.nan


def mean_skill(
    series: Iterable[TimeSeries],
    *,
    forecast: Callable[[TimeSeries, NDArray[np.int64]], Floats],
    first: int,
    horizon: int,
    season: int,
) -> float:
    """Return the skill over the seasonal-naive forecast, averaged over series.

    Parameters
    ----------
    series : iterable of TimeSeries
        Those too short for one forecast, and constant ones, do not count.
    forecast : callable
        Takes a series and origins `(N,)`, returns point forecasts `(N, horizon, C)`.
    first : int
        The first origin, at least `season`; then one every `horizon` readings.
    horizon, season : int
        Readings of a forecast and of a season.

    Raises
    ------
    SeriesError
        Where no series is long enough, or the seasonal-naive forecast errs in none.
    """
    skills = []
    for one in series:
        values = one.values
        origins = np.arange(first, len(values) - horizon + 1, horizon)
        if len(origins):
            truth = targets(values, origins=origins, horizon=horizon)
            naive = seasonal_naive(values, origins=origins, horizon=horizon, season=season)
            skills.append(skill(forecast(one, origins), naive, truth))
    if not skills:
        raise SeriesError(
            f"`y` is too short to score: with its context at least {first + horizon} readings are "
            f"needed, {first} to forecast from and a horizon of {horizon}."
        )
    known = [value for value in skills if not np.isnan(value)]
    if not known:
        raise SeriesError(
            "`y` cannot be scored: in no channel does the seasonal-naive forecast err; give a "
            "series that varies, with readings to compare."
        )
    return float(np.mean(known))
