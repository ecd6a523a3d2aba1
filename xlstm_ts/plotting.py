"""Pictures of forecasts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.axes import TRUTH, Display, Drawn, draw_fan, on_axis, put_legend, time_label
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.frames import read_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xlstm_ts.forecaster import XLSTMForecaster

Series = ArrayLike | pd.Series | pd.DataFrame
HISTORY_SHOWN = 3  # horizons


class ForecastDisplay(Display):
    """History, forecast and what came, one Axes a channel.

    It is made by `from_estimator` or `from_predictions`, and drawn again by `plot`.

    Parameters
    ----------
    history : DataFrame
        Readings up to the forecast, one column a channel.
    quantiles : DataFrame
        Forecasts with columns (channel, level).
    actual : DataFrame, optional
        The readings that came, with the columns of `history`.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (C,)
        One a channel; `ax_` is the first.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from xlstm_ts import ForecastDisplay, XLSTMForecaster
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> y = make_sensor_stream(1000, random_state=0).readings
    >>> forecaster = XLSTMForecaster(max_steps=20, random_state=0).fit(y.iloc[:-24])
    >>> display = ForecastDisplay.from_estimator(forecaster, actual=y.iloc[-24:])
    """

    def __init__(
        self,
        *,
        history: pd.DataFrame,
        quantiles: pd.DataFrame,
        actual: pd.DataFrame | None = None,
    ) -> None:
        self.history = history
        self.quantiles = quantiles
        self.actual = actual

    @classmethod
    def from_estimator(
        cls,
        estimator: XLSTMForecaster,
        y: Series | None = None,
        X: Series | None = None,
        *,
        actual: Series | None = None,
        ax: Drawn | None = None,
    ) -> ForecastDisplay:
        """Forecast and draw, with the last three horizons of history.

        Parameters
        ----------
        estimator : XLSTMForecaster
            A fitted one.
        y, X : array, Series or DataFrame, optional
            The context to forecast from and its covariates, as for `predict`.
        actual : array, Series or DataFrame, optional
            The readings that came after it, as far as they did, in the order of the channels.
        ax : Axes or sequence of Axes, optional
            Where to draw, one a channel; without it in a figure of its own.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `y` or `X` cannot be used, or `actual` has other channels.
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where `ax` is not one Axes a channel.
        """
        check_is_fitted(estimator)
        history = _history(estimator, y)
        # A frame whatever came: only that brings times and levels back.
        framed = copy.copy(estimator)
        framed.context_ = replace(estimator.context_, like=history.iloc[:0])
        quantiles = pd.DataFrame(framed.predict_quantiles(None if y is None else history, X))
        shown = history.iloc[-max(HISTORY_SHOWN * len(quantiles), 2) :]
        return cls.from_predictions(shown, quantiles, actual=actual, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        history: pd.Series[Any] | pd.DataFrame,
        quantiles: pd.DataFrame,
        *,
        actual: Series | None = None,
        ax: Drawn | None = None,
    ) -> ForecastDisplay:
        """Draw forecasts that are there already.

        Parameters
        ----------
        history : Series or DataFrame
            Readings up to the forecast.
        quantiles : DataFrame
            What `XLSTMForecaster.predict_quantiles` gives for such an object.
        actual, ax
            As for `from_estimator`.

        Raises
        ------
        SeriesError
            Where `actual` has other channels.
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where `ax` is not one Axes a channel.
        """
        if isinstance(history, pd.Series):
            history = history.to_frame("reading" if history.name is None else history.name)
            quantiles = pd.concat({history.columns[0]: quantiles}, axis=1)
        came = None if actual is None else _came(actual, history, quantiles.index)
        return cls(history=history, quantiles=quantiles, actual=came).plot(ax)

    def plot(self, ax: Drawn | None = None) -> ForecastDisplay:
        """Draw, on one Axes a channel or in a figure of its own; return the display."""
        channels = self.history.columns
        size = (10, 2 * len(channels) + 1)
        axes = self._open(ax, rows=len(channels), size=size, share_time=True)
        for axis, channel in zip(axes, channels, strict=True):
            self._draw(axis, channel)
        axes[-1].set_xlabel(time_label(self.history.index))
        put_legend(axes[0])
        return self

    def _draw(self, axis: Axes, channel: Any) -> None:
        for readings, style, name in (
            (self.history, "-", "readings"),
            (self.actual, ":", "what came"),
        ):
            if readings is not None:
                times = on_axis(readings.index)
                axis.plot(times, readings[channel], color=TRUTH, lw=1, ls=style, label=name)
        forecast = self.quantiles[channel]
        levels = list(forecast.columns)
        draw_fan(axis, on_axis(forecast.index), forecast.to_numpy(), levels=levels, label=True)
        axis.set_ylabel(str(channel))
        axis.margins(x=0.01)


def _history(estimator: XLSTMForecaster, y: Series | None) -> pd.DataFrame:
    """Return the readings to forecast from by time, under the names of the training series."""
    panel = estimator.context_ if y is None else read_panel(y, known=estimator.context_)
    if not panel.is_single:
        raise SeriesError("A picture is of one series; give one of them as `y`.")
    return pd.DataFrame(panel.longest.values, panel.longest.index, list(estimator.channels_))


def _came(actual: Any, history: pd.DataFrame, future: pd.Index[Any]) -> pd.DataFrame:
    """Return the readings that came as a frame; those without times go on from the history."""
    values = pd.DataFrame(actual).to_numpy(np.float64, na_value=np.nan)
    if values.shape[1] != history.shape[1]:
        raise SeriesError(
            f"`actual` has {values.shape[1]} channels, the forecast {history.shape[1]}: "
            f"{', '.join(map(str, history.columns))}."
        )
    if isinstance(actual, pd.Series | pd.DataFrame):
        return pd.DataFrame(values, actual.index, history.columns)
    values = values[: len(future)]
    return pd.DataFrame(values, future[: len(values)], history.columns)
