"""Pictures of residuals: what a forecast left over, and whether it has a pattern."""

from __future__ import annotations

from collections.abc import Hashable
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.axes import LINE, SHADES, TRUTH, Display, Drawn, on_axis, step_unit, time_label
from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import SeriesError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xlstm_ts.results import Backtest

Floats = NDArray[np.float64]
LONGEST_LAG = 40
NORMAL = NormalDist()


class ResidualsDisplay(Display):
    """Residuals in time, their histogram, against a normal distribution, and autocorrelation.

    Those of a good forecast one step ahead have no pattern in time: a mean near 0, and
    autocorrelations within the bounds, which hold 95 % of those of white noise.

    Parameters
    ----------
    residuals : Series
        Truth minus forecast by time; NaN is missing.
    lag : float
        Time from one residual to the next.
    unit : str
        Unit of `lag`.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (4,)
        Time, histogram, normal quantiles, autocorrelation; `ax_` is the first.
    figure_ : Figure
        The figure they are in.

    Raises
    ------
    SeriesError
        Where there are fewer than two residuals.

    Examples
    --------
    >>> import numpy as np
    >>> from xlstm_ts import ResidualsDisplay
    >>> noise = np.random.default_rng(0).standard_normal(100)
    >>> display = ResidualsDisplay.from_predictions(noise, np.zeros(100))
    """

    def __init__(self, *, residuals: pd.Series[Any], lag: float, unit: str) -> None:
        if residuals.notna().sum() < 2:
            raise SeriesError(
                f"There are {residuals.notna().sum()} residuals, at least 2 are needed; give more "
                "forecasts of readings that came."
            )
        self.residuals = residuals
        self.lag = lag
        self.unit = unit

    @classmethod
    def from_backtest(
        cls,
        backtest: Backtest,
        *,
        channel: str | None = None,
        series: Hashable = None,
        step: int = 1,
        ax: Drawn | None = None,
    ) -> ResidualsDisplay:
        """Draw the residuals of the forecasts that look `step` readings ahead.

        Parameters
        ----------
        backtest : Backtest
            What `backtest` gives; with `stride=1` every reading has a residual.
        channel : str, optional
            The channel; without it the first.
        series : hashable, optional
            Key of the series; needed where there are several.
        step : int, default=1
            Readings ahead, up to the horizon. Errors further ahead are correlated by nature.
        ax : sequence of four Axes, optional
            Where to draw; without it in a figure of its own.

        Raises
        ------
        SeriesError
            Where there are fewer than two residuals.
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where there is no such channel, series or step, several series and none is named, or
            `ax` is not four Axes.
        """
        check_integer("step", step, least=1)
        one = backtest.single(channel, series=series)
        if step > one.truth.shape[1]:
            raise ValueError(f"`step` must be at most {one.truth.shape[1]}, got {step}.")
        values = (one.truth - one.forecasts)[:, step - 1, 0]
        times = one.index[one.origins + step - 1]
        size, unit = step_unit(one.index)
        stride = int(np.diff(one.origins).min(initial=len(one.index)))
        residuals = pd.Series(values, times, name=one.title)
        return cls(residuals=residuals, lag=size * stride, unit=unit).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        truth: ArrayLike | pd.Series[Any],
        forecast: ArrayLike | pd.Series[Any],
        *,
        ax: Drawn | None = None,
    ) -> ResidualsDisplay:
        """Draw truth minus forecast, both `(T,)`: Series of one index, or arrays.

        Parameters
        ----------
        truth, forecast : array (T,) or Series
            What came, and what was forecast; times are those of the truth.
        ax : sequence of four Axes, optional
            Where to draw; without it in a figure of its own.

        Raises
        ------
        SeriesError
            Where shapes or indexes differ, or there are fewer than two residuals.
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where `ax` is not four Axes.
        """
        both: tuple[Any, Any] = truth, forecast
        came, guess = (pd.Series(one, dtype=np.float64) for one in both)
        if not came.index.equals(guess.index):
            raise SeriesError(
                f"`truth` and `forecast` must have one index, got {len(came)} and {len(guess)} "
                "readings of other times; align them: truth.align(forecast, join='inner')."
            )
        lag, unit = step_unit(came.index)
        return cls(residuals=came - guess, lag=lag, unit=unit).plot(ax)

    def plot(self, ax: Drawn | None = None) -> ResidualsDisplay:
        """Draw, on four Axes or in a figure of its own; return the display."""
        in_time, histogram, normal, correlation = self._open(ax, rows=2, columns=2, size=(10, 7))
        name = "residual" if self.residuals.name is None else f"residual of {self.residuals.name}"
        in_time.plot(on_axis(self.residuals.index), self.residuals, color=LINE, lw=1)
        in_time.axhline(0, color=TRUTH, lw=0.8, ls=":")
        in_time.set(xlabel=time_label(self.residuals.index), ylabel=name)
        in_time.tick_params("x", rotation=30)
        there = np.sort(self.residuals.dropna().to_numpy())
        self._draw_histogram(histogram, there)
        histogram.set(xlabel=name, ylabel="forecasts")
        self._draw_normal(normal, there)
        normal.set(xlabel="normal quantile", ylabel=name)
        self._draw_correlation(correlation)
        correlation.set(xlabel=f"lag ({self.unit})", ylabel="autocorrelation")
        return self

    def _draw_histogram(self, axis: Axes, there: Floats) -> None:
        """Draw as many bins as the root of the residuals, at most 50."""
        bins = min(int(np.sqrt(len(there))) + 1, 50)
        slack = 1e-9 * np.abs(there).max()  # residuals that differ by rounding alone fit no bins
        span = (there[0] - slack, there[-1] + slack)
        axis.hist(there, bins=bins, range=span, color=SHADES[0], edgecolor=TRUTH, lw=0.8)

    def _draw_normal(self, axis: Axes, there: Floats) -> None:
        """Draw sorted residuals over the quantiles of a normal distribution."""
        shares = (np.arange(len(there)) + 0.5) / len(there)
        quantiles = np.array([NORMAL.inv_cdf(share) for share in shares])
        axis.plot(quantiles, there, color=LINE, ls="", marker="o", ms=3)
        axis.plot(quantiles, there.mean() + there.std() * quantiles, color=TRUTH, lw=1, ls="--")

    def _draw_correlation(self, axis: Axes) -> None:
        """Draw the autocorrelation, with the bounds that 95 % of white noise stay within."""
        correlation = autocorrelation(self.residuals.to_numpy())
        lags = self.lag * np.arange(1, len(correlation) + 1)
        bound = NORMAL.inv_cdf(0.975) / np.sqrt(self.residuals.notna().sum())
        axis.vlines(lags, 0, correlation, color=LINE, lw=1.5)
        axis.axhline(0, color=TRUTH, lw=0.8)
        for side in (-bound, bound):
            axis.axhline(side, color=TRUTH, lw=1, ls="--")


def autocorrelation(values: Floats, *, longest: int = LONGEST_LAG) -> Floats:
    """Return the autocorrelation at lags 1, 2, ... `longest`, or as far as a series goes.

    Missing values count as the mean. A constant has none: 0 at every lag.
    """
    deviations = np.nan_to_num(values - np.nanmean(values))
    power = deviations @ deviations
    lags = range(1, min(longest, len(values) - 1) + 1)
    products = np.array([deviations[lag:] @ deviations[:-lag] for lag in lags])
    return products / power if power > 0 else np.zeros(len(lags))
