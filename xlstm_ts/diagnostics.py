"""Pictures of a backtest: errors by step ahead, and forecasts over the truth."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xlstm_ts.axes import (
    LINE,
    TRUTH,
    Display,
    Drawn,
    draw_fan,
    on_axis,
    put_legend,
    step_unit,
    time_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xlstm_ts.results import Backtest

STYLES = ({"color": LINE, "ls": "-"}, {"color": TRUTH, "ls": ":"}, {"color": TRUTH, "ls": "--"})


class BacktestDisplay(Display):
    """One channel of one series: the error at each step ahead, and the forecasts over the truth.

    Parameters
    ----------
    backtest : Backtest
        A backtest of one channel and one series, as `Backtest.single` gives it.

    Attributes
    ----------
    errors : DataFrame
        Mean absolute error at each step ahead (rows, in units of time), one column a forecaster.
    axes_ : ndarray of matplotlib Axes, shape (2,)
        Errors and forecasts; `ax_` is the first.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from xlstm_ts import BacktestDisplay, XLSTMForecaster, backtest
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> y = make_sensor_stream(1000, random_state=0).readings
    >>> result = backtest(XLSTMForecaster(max_steps=20, random_state=0), y, n_windows=4)
    >>> display = BacktestDisplay.from_backtest(result, channel="load_pct")
    """

    def __init__(self, *, backtest: Backtest) -> None:
        self.backtest = backtest
        step, self._unit = step_unit(backtest.index)
        steps = step * np.arange(1, backtest.truth.shape[1] + 1)
        gaps = {
            name: np.ma.masked_invalid(np.abs(point - backtest.compared))
            .mean((0, 2))
            .filled(np.nan)
            for name, point in backtest.points().items()
        }
        self.errors = pd.DataFrame(gaps, index=steps)

    @classmethod
    def from_backtest(
        cls,
        backtest: Backtest,
        *,
        channel: str | None = None,
        series: Hashable = None,
        ax: Drawn | None = None,
    ) -> BacktestDisplay:
        """Draw one channel of one series of a backtest.

        Parameters
        ----------
        backtest : Backtest
            What `backtest` gives.
        channel : str, optional
            The channel; without it the first.
        series : hashable, optional
            Key of the series; needed where there are several.
        ax : sequence of two Axes, optional
            Where to draw errors and forecasts; without it in a figure of its own.

        Raises
        ------
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where there is no such channel or series, several series and none is named, or `ax` is
            not two Axes.
        """
        return cls(backtest=backtest.single(channel, series=series)).plot(ax)

    def plot(self, ax: Drawn | None = None) -> BacktestDisplay:
        """Draw, on two Axes or in a figure of its own; return the display."""
        errors, forecasts = self._open(ax, rows=2, size=(10, 7))
        for (name, line), style in zip(self.errors.items(), STYLES, strict=True):
            errors.plot(line.index, line, label=name, lw=1.5, **style)
        title = self.backtest.title
        errors.set(xlabel=f"{self._unit} ahead", ylabel=f"MAE of {title}", ylim=(0, None))
        put_legend(errors)
        self._draw_forecasts(forecasts)
        forecasts.set(xlabel=time_label(self.backtest.index), ylabel=title)
        put_legend(forecasts)
        return self

    def _draw_forecasts(self, axis: Axes) -> None:
        """Draw the truth, and forecasts far enough apart to be told from one another."""
        result = self.backtest
        horizon = result.truth.shape[1]
        ahead = result.origins[:, None] + np.arange(horizon)
        first = ahead[0, 0]
        came = np.full(ahead[-1, -1] + 1 - first, np.nan)  # NaN: between windows lines break
        came[ahead - first] = result.truth[..., 0]
        times = on_axis(result.index[first : first + len(came)])
        axis.plot(times, came, color=TRUTH, lw=1, label="readings")
        stride = int(np.diff(result.origins).min(initial=horizon))
        for row in range(0, len(ahead), -(-horizon // stride)):
            fan, levels = result.quantiles[row, :, 0], result.levels
            draw_fan(axis, times[ahead[row] - first], fan, levels=levels, label=row == 0)
