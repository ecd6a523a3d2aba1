"""What a reading says against itself: four views of it, channel by channel.

Against the forecast (of the online head and of the model together), against the readings of
training, against the last readings, and against the other channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.correction import Correction
from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there

SUREST = 0.2  # of the usual width


class Views(NamedTuple):
    """How far a reading is off, `(..., C)` each in units of what is usual there; NaN says nothing.

    Attributes
    ----------
    forecast : ndarray of float64, shape (..., C)
        From what was expected.
    level, recent : ndarray of float64, shape (..., C)
        From the readings of training, and from the last ones.
    relation : ndarray of float64, shape (..., C)
        From what the other channels tell.
    """

    forecast: Floats
    level: Floats
    recent: Floats
    relation: Floats

    def only(self, settled: Mask) -> Views:
        """Return the views of some channels, and nothing of the others."""
        return self if settled.all() else Views(*np.where(settled, np.array(self), np.nan))


class ForecastErrors(Stage):
    """The error of a reading by the online head and by the model behind it, as one.

    The model forecasts the next innovation. Where it is surer than usual an error counts for more;
    where it is less sure an error counts no less: an anomaly that goes on makes a model expect more
    of it, and must not be forgiven for that. Nor may the online head be talked into it, so both
    errors count alike: the logarithm of 1 + error is the mean of theirs.

    Parameters
    ----------
    n_channels : int
        C, channels.
    half_life : float
        Of the running location and scale of the model's errors.
    """

    STATE = ("correction", "usual")

    def __init__(self, n_channels: int, *, half_life: float) -> None:
        self.correction = Correction(np.zeros(n_channels), np.ones(n_channels), half_life=half_life)
        self.usual = np.ones(n_channels)  # width of the forecast

    def fit(self, quantiles: Floats) -> None:
        """Learn the usual width of forecasts, `(T, C, Q)`; NaN where there was none."""
        self.usual = np.nanmedian(quantiles[..., -1] - quantiles[..., 0], 0)

    def step(self, error: Floats, quantiles: Floats | None) -> Floats:
        """Return the joint error of an innovation `(..., C)`; its model forecast `(..., C, Q)`."""
        if quantiles is None:
            return error
        middle = quantiles[..., quantiles.shape[-1] // 2]
        width = (quantiles[..., -1] - quantiles[..., 0]) / self.usual
        known = is_there(width)
        middle, width = np.where(known, middle, 0.0), np.where(known, width, 1.0)
        own = self.correction.step((error - middle) / np.minimum(np.maximum(width, SUREST), 1.0))
        return np.copysign(np.sqrt((1 + np.abs(error)) * (1 + np.abs(own))) - 1, own)
