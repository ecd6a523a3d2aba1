"""Pictures of what a detector says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from xlstm_ts.axes import LINE, SHADES, TRUTH, Display, Drawn, on_axis, put_legend, time_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xlstm_ts.anomaly.verdicts import Trace
    from xlstm_ts.detector import XLSTMAnomalyDetector

Series = ArrayLike | pd.Series | pd.DataFrame
WIDTH = 3.0  # scales of the error on each side of the band
EVENT = "#fdae6b"


class AnomalyDisplay(Display):
    """A signal with its expected band and events, the score with its threshold, contributions.

    Made by `from_estimator`, and drawn again by `plot`.

    Parameters
    ----------
    readings : DataFrame
        Raw readings, one column a channel.
    trace : Trace
        What the detector says of them.
    alpha : float
        The budget, as a share of readings.
    channel : str, optional
        The channel to draw; without it the one that has most to do with the events.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3,)
        Signal, score, contributions; `ax_` is the first.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from xlstm_ts import AnomalyDisplay, XLSTMAnomalyDetector
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> readings = make_sensor_stream(1200, random_state=0).readings
    >>> detector = XLSTMAnomalyDetector(use_model=False).fit(readings.iloc[:600])
    >>> display = AnomalyDisplay.from_estimator(detector, readings.iloc[600:])
    """

    def __init__(
        self, *, readings: pd.DataFrame, trace: Trace, alpha: float, channel: str | None = None
    ) -> None:
        self.readings = readings
        self.trace = trace
        self.alpha = alpha
        self.channel = channel

    @classmethod
    def from_estimator(
        cls,
        estimator: XLSTMAnomalyDetector,
        X: Series,
        *,
        channel: str | None = None,
        ax: Drawn | None = None,
    ) -> AnomalyDisplay:
        """Judge a series and draw.

        Parameters
        ----------
        estimator : XLSTMAnomalyDetector
            A fitted one.
        X : array, Series or DataFrame
            Readings with the channels and the step of the training series.
        channel : str, optional
            The channel to draw; without it the one that has most to do with the events.
        ax : sequence of three Axes, optional
            Where to draw; without it in a figure of its own.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `X` cannot be used.
        BackendError
            Where matplotlib is not installed.
        ValueError
            Where there is no such channel, or `ax` is not three Axes.
        TypeError
            Where the estimator is no detector.
        """
        if not hasattr(estimator, "judged"):
            raise TypeError(
                f"AnomalyDisplay takes an XLSTMAnomalyDetector, got {type(estimator).__name__}; a "
                "forecaster goes to `ForecastDisplay`."
            )
        readings, trace = estimator.judged(X)
        return cls(readings=readings, trace=trace, alpha=estimator.alpha_, channel=channel).plot(ax)

    def plot(self, ax: Drawn | None = None) -> AnomalyDisplay:
        """Draw, on three Axes or in a figure of its own; return the display."""
        names = list(self.readings.columns)
        if self.channel is not None and self.channel not in names:
            known = ", ".join(map(str, names))
            raise ValueError(f"`channel` must be one of {known}, got {self.channel!r}.")
        number = self._busiest() if self.channel is None else names.index(self.channel)
        signal, score, shares = self._open(ax, rows=3, size=(10, 7), share_time=True)
        self._draw_signal(signal, number)
        self._draw_score(score)
        self._draw_shares(shares)
        shares.set_xlabel(time_label(self.readings.index))
        return self

    def _busiest(self) -> int:
        events = self.trace.events  # levels and stuck sensors raise some that have no peak
        weighed = [event.shares * max(event.peak, 1.0) for event in events]
        return int(np.sum(weighed, axis=0).argmax()) if events else 0

    def _draw_signal(self, axis: Axes, number: int) -> None:
        times, trace = on_axis(self.readings.index), self.trace
        expected, scale = trace.expected[:, number], WIDTH * trace.scale[:, number]
        axis.fill_between(
            times, expected - scale, expected + scale, color=SHADES[0], lw=0, label="expected"
        )
        axis.plot(times, self.readings.iloc[:, number], color=TRUTH, lw=1, label="readings")
        for count, event in enumerate(trace.events):
            span = (times[event.start], times[event.end])
            name = None if count else "event"
            axis.axvspan(*span, color=EVENT, alpha=0.5, lw=1.5, label=name)
        axis.set_ylabel(str(self.readings.columns[number]))
        axis.margins(x=0.01)
        put_legend(axis)

    def _draw_score(self, axis: Axes) -> None:
        times = on_axis(self.readings.index)
        axis.plot(times, self.trace.scores, color=LINE, lw=1)
        axis.axhline(-math.log10(self.alpha), color=TRUTH, lw=0.8, ls="--")
        axis.set_ylabel("-log10 p")

    def _draw_shares(self, axis: Axes) -> None:
        """Draw how much each channel has to do with the score, times the score."""
        weighted: Any = (self.trace.contributions * self.trace.scores[:, None]).T
        shades = axis.imshow(
            weighted, aspect="auto", cmap="Greys", interpolation="nearest", vmin=0,
            extent=self._extent(len(weighted)),
        )  # fmt: skip
        axis.set_yticks(range(len(weighted)), [str(name) for name in self.readings.columns])
        axis.figure.colorbar(shades, ax=axis, label="share of -log10 p", shrink=0.8)

    def _extent(self, channels: int) -> tuple[float, float, float, float]:
        times = self.axes_[0].xaxis.convert_units(on_axis(self.readings.index))
        return float(times[0]), float(times[-1]), channels - 0.5, -0.5
