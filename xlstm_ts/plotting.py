"""Pictures of forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from xlstm_ts.exceptions import BackendError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAND, LINE, TRUTH = "#9ecae1", "#08519c", "#333333"


def plot_forecast(
    history: pd.DataFrame, quantiles: pd.DataFrame, *, actual: pd.DataFrame | None = None
) -> Figure:
    """Draw history, forecast band and what came, one panel a channel.

    Parameters
    ----------
    history : DataFrame
        Readings up to the forecast, one column a channel.
    quantiles : DataFrame
        What `XLSTMForecaster.predict_quantiles` gives for a frame: columns (channel, level).
    actual : DataFrame, optional
        The readings that came, with the columns of `history`.

    Returns
    -------
    matplotlib.figure.Figure
        The picture; it belongs to no window.

    Raises
    ------
    BackendError
        Where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise BackendError("Pictures need matplotlib: install xlstm-ts[plot].") from err
    count = history.shape[1]
    figure = Figure(figsize=(10, 2 * count + 1), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axis, channel in zip(axes, history.columns, strict=True):
        forecast = quantiles[channel]
        levels = list(forecast.columns)
        middle = min(levels, key=lambda level: abs(level - 0.5))
        axis.plot(history.index, history[channel], color=TRUTH, lw=1, label="readings")
        if actual is not None:
            axis.plot(actual.index, actual[channel], color=TRUTH, lw=1, ls=":", label="what came")
        axis.plot(forecast.index, forecast[middle], color=LINE, lw=1.5, label="forecast")
        if len(levels) > 1:
            band = f"{levels[0]:g} to {levels[-1]:g}"
            low, high = forecast[levels[0]], forecast[levels[-1]]
            axis.fill_between(forecast.index, low, high, color=BAND, alpha=0.6, label=band)
        axis.set_ylabel(channel)
        axis.margins(x=0.01)
    axes[0].legend(loc="upper left", ncols=4, frameon=False)
    return figure
