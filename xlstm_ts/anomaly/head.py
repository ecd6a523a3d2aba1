"""An online forecast of the next reading, corrected after each: recursive least squares.

A channel's reading is explained by a constant, its last readings and, where there is a model, what
that forecast for it. Without a model this is an online autoregression; with one it begins as the
model's forecast and learns what that gets wrong (L. Ljung and T. Söderström, "Theory and Practice
of Recursive Identification", 1983, equations 2.19 to 2.21).
"""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there

START = 1.0  # variance of a weight before the first reading, in spreads of the channel
# Forgetting multiplies what no reading informs about: beyond this nothing more is forgotten.
MOST_DOUBT = 100.0
WINSOR = 4.0  # scales of the error that one reading may teach


class OnlineHead(Stage):
    """Forecasts each channel by weights that recursive least squares updates.

    Parameters
    ----------
    n_channels : int
        C, channels; each has weights of its own.
    n_lags : int
        Last readings that a forecast sees; 0 takes the model's forecast and a constant alone.
    has_model : bool
        Whether a forecast of a model comes with each reading.
    forgetting : float
        Weight of the reading before in units of that of the last one.
    """

    STATE = ("weights", "doubt", "lags", "regressors")

    def __init__(self, n_channels: int, *, n_lags: int, has_model: bool, forgetting: float) -> None:
        inputs = 1 + has_model + n_lags
        self.n_lags, self.has_model, self.forgetting = n_lags, has_model, forgetting
        self.weights = np.zeros((n_channels, inputs))
        self.weights[:, 1] = 1.0  # the model's forecast, or the last reading
        self.doubt = np.tile(START * np.eye(inputs), (n_channels, 1, 1))
        self.lags = np.zeros((n_channels, n_lags))
        self.regressors = np.zeros((n_channels, inputs))

    def forecast(self, expected: Floats | None) -> Floats:
        """Return what the next reading is expected to be, `(C,)`.

        Parameters
        ----------
        expected : ndarray of float64, shape (C,), or None
            What the model forecasts.
        """
        self.regressors[:, 0] = 1.0
        if self.has_model:
            self.regressors[:, 1] = expected
        self.regressors[:, 1 + self.has_model :] = self.lags
        return (self.weights * self.regressors).sum(1)

    def update(self, value: Floats, forecast: Floats, scale: Floats) -> None:
        """Take the reading that was forecast.

        Parameters
        ----------
        value, forecast, scale : ndarray of float64, shape (C,)
            The reading, NaN where missing: then the forecast stands in its place among the last
            readings and nothing is learnt; what was forecast; and the scale of errors.
        """
        there = is_there(value)
        error = np.where(there, value - forecast, 0.0)
        error = np.clip(error, -WINSOR * scale, WINSOR * scale)
        informed = (self.doubt @ self.regressors[:, :, None])[:, :, 0]
        power = self.forgetting + (self.regressors * informed).sum(1)
        gain = informed / power[:, None]
        self.weights = self.weights + gain * error[:, None]
        learnt = self.doubt - gain[:, :, None] * informed[:, None, :]
        trace = np.trace(learnt, axis1=1, axis2=2)
        forgets = trace < MOST_DOUBT * self.doubt.shape[1]
        learnt = np.where(forgets, 1 / self.forgetting, 1.0)[:, None, None] * learnt
        self.doubt = np.where(there[:, None, None], learnt, self.doubt)
        if self.n_lags:
            newest = np.where(there, value, forecast)
            self.lags = np.concatenate((newest[:, None], self.lags[:, :-1]), 1)
