"""What errors say: normal scores of the online forecast and of the model behind it.

The model forecasts the next innovation. Where it is surer than usual an error counts for more;
where it is less sure an error counts no less: an anomaly that goes on makes a model expect more of
it, and must not be forgiven for that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there
from xlstm_ts.anomaly.surprise import Correction, fit_student, normal_score

SUREST = 0.2  # of the usual width


class Scores(NamedTuple):
    """Normal scores of one reading, `(C,)` each; NaN is missing.

    Attributes
    ----------
    online, model : ndarray of float64, shape (C,)
        Of the error of the online head, and of that of the model.
    """

    online: Floats
    model: Floats


class ErrorScores(Stage):
    """Turns innovations and their forecasts into normal scores.

    Parameters
    ----------
    n_channels : int
        C, channels.
    half_life : float
        Of the running location and scale of the model's errors.
    """

    STATE = ("correction", "usual", "degrees", "scale")

    def __init__(self, n_channels: int, *, half_life: float) -> None:
        self.correction = Correction(np.zeros(n_channels), np.ones(n_channels), half_life=half_life)
        self.usual = np.ones(n_channels)  # width of the forecast
        # Student's t, of the online head and of the model.
        self.degrees, self.scale = np.full((2, n_channels), 5.0), np.ones((2, n_channels))

    def fit(self, errors: Floats, quantiles: Floats | None) -> None:
        """Learn from errors of the online head `(T, C)` and the forecasts of them `(T, C, Q)`."""
        if quantiles is not None:
            widths = quantiles[..., -1] - quantiles[..., 0]
            self.usual = np.nanmedian(widths, 0)
        rows = [None] * len(errors) if quantiles is None else [*quantiles]
        second = np.array([self._model_error(*row) for row in zip(errors, rows, strict=True)])
        fits = [fit_student(part) for part in (errors, second)]
        self.degrees, self.scale = (np.stack(parts) for parts in zip(*fits, strict=True))

    def step(self, error: Floats, quantiles: Floats | None) -> Scores:
        """Return the normal scores of an innovation `(C,)` and the forecast of it `(C, Q)`."""
        both = np.stack((error, self._model_error(error, quantiles)))
        return Scores(*normal_score(both, degrees=self.degrees, scale=self.scale))

    def _model_error(self, error: Floats, quantiles: Floats | None) -> Floats:
        if quantiles is None:
            return error
        middle = quantiles[:, quantiles.shape[1] // 2]
        width = (quantiles[:, -1] - quantiles[:, 0]) / self.usual
        known = is_there(width)
        middle, width = np.where(known, middle, 0.0), np.where(known, width, 1.0)
        return self.correction.step((error - middle) / np.minimum(np.maximum(width, SUREST), 1.0))
