"""Conformal calibration: intervals that hold as often as they say, from errors on held-out data.

Split conformal prediction (Lei et al. 2018, arXiv:1604.04173), one step of the horizon and one
channel at a time. An error is counted in units of the width that the model
itself gives its outermost quantiles there (Romano et al. 2019, "Conformalized Quantile
Regression", arXiv:1905.03222, in the scaled form), so that the interval is wide where the model is
unsure. Each side has its own errors: an interval need not be symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.panels import TimeSeries

Floats = NDArray[np.float64]
# Enough for a coverage of 99.8 %, and a file of a few megabytes.
MOST_FORECASTS = 1000


class Calibration(NamedTuple):
    """Errors of the point forecast on held-out readings.

    Attributes
    ----------
    errors : ndarray of float64, shape (N, H, C)
        Truth less forecast in units of `widths`, in increasing order along the first axis; NaN,
        which comes last, where a reading is missing.
    """

    errors: Floats

    def factors(self, coverage: float) -> Floats:
        """Return what the widths are multiplied by below and above the forecast, `(2, H, C)`.

        With n errors the upper one is the k-th smallest, k = ceil((n + 1) (1 + coverage) / 2): a
        reading exchangeable with the held-out ones then lies above it with a probability of at
        most (1 - coverage) / 2, but for what the choice of the weights by the same tail takes away.

        Raises
        ------
        ValueError
            Where `coverage` is outside (0, 1), or wants more held-out forecasts than there are.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"`coverage` must be in (0, 1), got {coverage}.")
        count = np.isfinite(self.errors).sum(0)
        # Rounded first: 0.9 is no binary fraction.
        above = np.ceil(np.round((count + 1) * (1 + coverage) / 2, 9)).astype(int)
        if (above > count).any():
            needed = math.ceil(round((1 + coverage) / (1 - coverage), 9))
            raise ValueError(
                f"A coverage of {coverage} needs at least {needed} forecasts of held-out readings, "
                f"there are {count.min()}: lower it, or give a longer series or a larger "
                "`validation_fraction`."
            )
        ranks = np.stack((count - above, above - 1))
        return np.take_along_axis(self.errors, ranks, 0)


def calibrate(forecasts: Floats, truth: Floats, *, median: int) -> Calibration:
    """Return the calibration of quantile forecasts `(N, H, C, Q)` by what came, `(N, H, C)`."""
    return Calibration(np.sort((truth - forecasts[..., median]) / widths(forecasts), 0))


def calibrate_tails(
    series: Sequence[TimeSeries],
    *,
    starts: Sequence[int],
    forecast: Callable[[TimeSeries, NDArray[np.int64]], Floats],
    horizon: int,
    median: int,
) -> Calibration:
    """Return the calibration by forecasts from within the tails of series.

    Parameters
    ----------
    series : sequence of TimeSeries
        What was trained on.
    starts : sequence of int
        Where each tail begins; a series with 0 was not trained on and is left out.
    forecast : callable
        Takes a series and origins `(N,)`, returns quantile forecasts `(N, horizon, C, Q)`.
    horizon, median : int
        Readings of a forecast, and the index of its point forecast.
    """
    last = [len(one) - horizon + 1 for one in series]
    count = sum(end - start for start, end in zip(starts, last, strict=True) if start)
    stride = max(1, math.ceil(count / MOST_FORECASTS))
    forecasts, truths = [], []
    for one, start, end in zip(series, starts, last, strict=True):
        origins = np.arange(start, end, stride)
        if start and len(origins):
            forecasts.append(forecast(one, origins))
            ahead = origins[:, None] + np.arange(horizon)
            truths.append(one.values[ahead])
    if not forecasts:
        return Calibration(np.empty((0, horizon, series[0].values.shape[1])))
    return calibrate(np.concatenate(forecasts), np.concatenate(truths), median=median)


def intervals(
    forecasts: Floats, calibration: Calibration, *, median: int, coverage: float
) -> Floats:
    """Return lower and upper bounds `(N, H, C, 2)` of quantile forecasts `(N, H, C, Q)`."""
    factors = np.moveaxis(calibration.factors(coverage), 0, -1)
    return forecasts[..., median, None] + factors * widths(forecasts)[..., None]


def widths(forecasts: NDArray[np.floating]) -> Floats:
    """Return the distance of the outermost quantiles `(N, H, C)`; 1 where there is but one."""
    if forecasts.shape[-1] == 1:
        return np.ones(forecasts.shape[:-1])
    outer = forecasts[..., -1] - forecasts[..., 0]
    # Quantiles may touch, but by rounding alone: no error is divided by nothing.
    return np.maximum(outer, np.finfo(np.float32).eps * np.abs(forecasts).max(-1) + 1e-300)


class OnlineIntervals:
    """Intervals that follow a drift: each miss widens them a little, each hit narrows them.

    The factors of `Calibration` are the start. Each reading then moves those of the forecasts that
    were made of it by `rate` times miss less the miss rate wanted (quantile tracking:
    Angelopoulos, Candes and Tibshirani 2023, arXiv:2307.16895, equation 4; Gibbs and Candes 2021,
    arXiv:2106.00170). Whatever the data, the share of misses on a side over n readings differs from
    the one wanted by exactly the way that its factor has gone, divided by `rate` times n.

    Parameters
    ----------
    calibration : Calibration
        `XLSTMForecaster.calibration_`.
    median : int
        Index of the point forecast among the quantiles.
    coverage : float, default=0.9
        Share of readings that are to lie inside.
    rate : float, default=0.01
        Step of a factor at a miss, in widths of the outermost quantiles.
    lowest : float, optional
        What every reading lies above, such as 0 for sales: no bound falls below it.

    Examples
    --------
    >>> import numpy as np
    >>> errors = np.sort(np.random.default_rng(0).standard_normal((100, 2, 1)), 0)
    >>> online = OnlineIntervals(Calibration(errors), median=1)
    >>> forecast = np.array([[[-1.0, 0.0, 1.0]], [[-2.0, 0.0, 2.0]]])
    >>> online.step(np.array([0.3]), forecast).shape  # lower and upper of both steps
    (2, 1, 2)
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        median: int,
        coverage: float = 0.9,
        rate: float = 0.01,
        lowest: float = -math.inf,
    ) -> None:
        if not rate > 0:
            raise ValueError(f"`rate` must be above 0, got {rate}.")
        self.factors = np.array(calibration.factors(coverage))
        self.median, self.rate, self.miss_rate = median, rate, (1 - coverage) / 2
        self.lowest = lowest
        _, horizon, channels = self.factors.shape
        # Bounds of the next readings, by how long ago they were given.
        self._given = np.full((horizon, horizon, channels, 2), np.nan)

    def step(self, reading: NDArray[np.floating], forecast: NDArray[np.floating]) -> Floats:
        """Judge the forecasts that were made of a reading, and bound the new ones.

        Parameters
        ----------
        reading : ndarray of float, shape (C,)
            The reading; NaN is missing and judges nothing.
        forecast : ndarray of float, shape (H, C, Q)
            The quantile forecasts made after it.

        Returns
        -------
        ndarray of float64, shape (H, C, 2)
            Lower and upper bounds of the next readings.
        """
        steps = np.arange(len(forecast))
        # The bounds for this reading: the first of last time's, the second of those before, ...
        due = self._given[steps, steps]
        for side, missed in enumerate((reading < due[..., 0], reading > due[..., 1])):
            moves = self.rate * (missed - self.miss_rate) * np.isfinite(due[..., side] + reading)
            self.factors[side] += moves if side else -moves
        middle, width = forecast[..., self.median], widths(forecast)
        bounds = np.moveaxis(middle + self.factors * width, 0, -1).clip(self.lowest)
        self._given = np.roll(self._given, 1, axis=0)
        self._given[0] = bounds
        return bounds
