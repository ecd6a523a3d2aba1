"""An online forecast of the next reading, corrected after each: recursive least squares.

Each channel is an autoregression of its own, whose weights follow the series (L. Ljung and
T. Söderström, "Theory and Practice of Recursive Identification", 1983, equations 2.19 to 2.21).
"""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there, within

START = 1.0  # variance of a weight before the first reading, in spreads of the channel
# Forgetting multiplies what no reading informs about: beyond this nothing more is forgotten.
MOST_DOUBT = 100.0
# Spreads beyond the last readings, of a forecast in the place of a missing one: what follows from
# forecasts alone would otherwise run away, and errors with it.
STRAY = 1.0
WINSOR = 4.0  # scales of the error that one reading may teach


class OnlineHead(Stage):
    """Forecasts each channel from a constant and its last readings.

    Parameters
    ----------
    n_channels : int
        C, channels.
    n_lags : int
        Last readings that a forecast sees.
    forgetting : float
        Weight of a reading in units of that of the next one.

    Attributes
    ----------
    weights : ndarray of float64, shape (C, 1 + n_lags)
        Of the constant and the last readings, the newest first.
    doubt : ndarray of float64, shape (C, 1 + n_lags, 1 + n_lags)
        The inverse of what the readings have told of them.
    lags : ndarray of float64, shape (C, n_lags)
        The last readings.
    """

    STATE = ("weights", "doubt", "lags")

    def __init__(self, n_channels: int, *, n_lags: int, forgetting: float) -> None:
        self.forgetting, self.diagonal = forgetting, np.arange(1 + n_lags)
        self.weights = np.zeros((n_channels, 1 + n_lags))
        self.weights[:, 1] = 1.0  # the last reading
        self.doubt = np.tile(START * np.eye(1 + n_lags), (n_channels, 1, 1))
        self.lags = np.zeros((n_channels, n_lags))

    def forecast(self) -> Floats:
        """Return what the next reading is expected to be, `(..., C)`."""
        return self.weights[..., 0] + (self.weights[..., 1:] * self.lags).sum(-1)

    def update(self, value: Floats, forecast: Floats, scale: Floats) -> None:
        """Take the reading that was forecast.

        Parameters
        ----------
        value, forecast, scale : ndarray of float64, shape (..., C)
            The reading, NaN where missing: then the forecast stands in its place among the last
            readings, at most a spread beyond them, and nothing is learnt; what was forecast; and
            the scale of errors.
        """
        there = is_there(value)
        error = within(np.where(there, value - forecast, 0.0), WINSOR * scale)
        seen = np.concatenate((np.ones((*value.shape, 1)), self.lags), -1)
        informed = (self.doubt @ seen[..., None])[..., 0]
        gain = informed / (self.forgetting + (seen * informed).sum(-1))[..., None]
        self.weights = self.weights + gain * error[..., None]
        learnt = self.doubt - gain[..., :, None] * informed[..., None, :]
        trace = learnt[..., self.diagonal, self.diagonal].sum(-1)
        forgets = trace < MOST_DOUBT * self.doubt.shape[-1]
        learnt = np.where(forgets, 1 / self.forgetting, 1.0)[..., None, None] * learnt
        self.doubt = np.where(there[..., None, None], learnt, self.doubt)
        low, high = self.lags.min(-1) - STRAY, self.lags.max(-1) + STRAY
        newest = np.where(there, value, np.minimum(np.maximum(forecast, low), high))
        self.lags = np.concatenate((newest[..., None], self.lags[..., :-1]), -1)
