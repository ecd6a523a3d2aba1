"""Errors of forecasts: every metric is a mean over the readings that came, all others left out.

Arrays are `(N, H, C)`: forecasts, horizon, channels; quantiles, `(N, H, C, Q)`, have one axis more.
Truth comes first, as in scikit-learn; NaN in it is missing. Where there is a truth, the forecast is
to be a finite number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    root_mean_squared_error,
)

from xlstm_ts.exceptions import SeriesError

Floats = NDArray[np.float64]


def mse(truth: Floats, forecast: Floats) -> float:
    """Return the mean squared error; both `(N, H, C)`, in squared units of the readings."""
    return float(mean_squared_error(*_pairs(truth, forecast)))


def mae(truth: Floats, forecast: Floats) -> float:
    """Return the mean absolute error; both `(N, H, C)`, in units of the readings."""
    return float(mean_absolute_error(*_pairs(truth, forecast)))


def rmse(truth: Floats, forecast: Floats) -> float:
    """Return the root of the mean squared error; both `(N, H, C)`, in units of the readings."""
    return float(root_mean_squared_error(*_pairs(truth, forecast)))


def seasonal_scale(values: Floats, *, season: int) -> Floats:
    """Return what MASE divides by: the error in the training part of repeating a season.

    Parameters
    ----------
    values : ndarray of float64, shape (T, C)
        The readings of the training part; NaN is missing.
    season : int
        Readings in a season; 1 repeats the last reading.

    Returns
    -------
    ndarray of float64, shape (C,)
        Mean of |y[t] - y[t - season]| over the pairs that are there; NaN where there is none.
    """
    errors = np.abs(values[season:] - values[:-season])
    there = ~np.isnan(errors)
    sums, counts = np.where(there, errors, 0).sum(0), there.sum(0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def mase(truth: Floats, forecast: Floats, *, scale: Floats) -> float:
    """Return the mean absolute scaled error, as in the M4 competition.

    Parameters
    ----------
    truth, forecast : ndarray of float64, shape (N, H, C)
        What came, and what was forecast.
    scale : ndarray of float64, shape (C,) or any that broadcasts to (N, H, C)
        What `seasonal_scale` gives. Channels where it is 0 or NaN do not count: beside a perfect
        yardstick every error would be infinite.

    Returns
    -------
    float
        Mean of the errors in units of the scale; NaN where no channel counts.
    """
    came, guess = _pairs(truth, forecast)
    unit = np.broadcast_to(scale, truth.shape)[~np.isnan(truth)]
    counts = unit > 0
    errors = np.abs(came - guess)[counts] / unit[counts]
    return float(errors.mean()) if len(errors) else np.nan


def smape(truth: Floats, forecast: Floats) -> float:
    """Return the symmetric mean absolute percentage error of M4, from 0 to 200.

    The mean of 200 |y - f| / (|y| + |f|), where 0/0 counts as 0; both `(N, H, C)`.
    """
    came, guess = _pairs(truth, forecast)
    size = np.abs(came) + np.abs(guess)
    return float(np.mean(200 * np.abs(came - guess) / np.where(size > 0, size, 1)))


def wql(truth: Floats, quantiles: Floats, *, levels: Sequence[float]) -> float:
    """Return the weighted quantile loss: pinball losses in units of the size of the readings.

    Parameters
    ----------
    truth : ndarray of float64, shape (N, H, C)
        What came.
    quantiles : ndarray of float64, shape (N, H, C, Q)
        Forecasts at each level. A point forecast is one that stands for every quantile; with
        levels that lie evenly around 0.5 its loss is sum |y - f| / sum |y|.
    levels : sequence of float, length Q
        The levels in (0, 1).

    Returns
    -------
    float
        Mean over levels of 2 sum(pinball loss) / sum |y|; NaN where every reading is 0.
    """
    came, guesses = _pairs(truth, quantiles)
    size = np.abs(came).mean()
    columns = zip(levels, guesses.T, strict=True)
    losses = [mean_pinball_loss(came, guess, alpha=level) for level, guess in columns]
    return float(2 * np.mean(losses) / size) if size > 0 else np.nan


def coverage(truth: Floats, quantiles: Floats) -> float:
    """Return the share of readings within the outermost quantiles; NaN where there is only one.

    Parameters
    ----------
    truth : ndarray of float64, shape (N, H, C)
        What came.
    quantiles : ndarray of float64, shape (N, H, C, Q)
        Forecasts at increasing levels. Of good ones the share is near the distance between the
        outermost levels.
    """
    came, guesses = _pairs(truth, quantiles)
    if guesses.shape[-1] < 2:
        return np.nan
    return float(np.mean((guesses[:, 0] <= came) & (came <= guesses[:, -1])))


def _pairs(truth: Floats, forecast: Floats) -> tuple[Floats, Floats]:
    """Return readings that came, `(n,)`, and the forecasts of them, `(n,)` or `(n, Q)`."""
    there = ~np.isnan(truth)
    if not there.any():
        raise SeriesError("There is no reading to compare a forecast with, only NaN.")
    return truth[there], forecast[there]
