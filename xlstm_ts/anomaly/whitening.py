"""The front of the chain: a reading becomes an innovation, what nothing before it foretold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.guard import InputGuard
from xlstm_ts.anomaly.head import OnlineHead
from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there, within
from xlstm_ts.anomaly.surprise import Correction

CLIP = 3.0  # of what a model sees: it is not to expect what is wrong
SMALLEST = 1e-3  # scale of errors to start from, in spreads


class Innovation(NamedTuple):
    """A reading after the front of the chain.

    Attributes
    ----------
    value : ndarray of float64, shape (C,)
        The reading in units of its channel; NaN is missing.
    there : ndarray of bool, shape (C,)
        Which channels have one.
    error : ndarray of float64, shape (C,)
        The error of the online forecast, in units of the errors before it; NaN is missing.
    expected, scale : ndarray of float64, shape (C,)
        The online forecast, and the scale of its errors, both in raw units.
    gap : ndarray of float64, shape (C,)
        Missing readings right before it.
    """

    value: Floats
    there: Mask
    error: Floats
    expected: Floats
    scale: Floats
    gap: Floats

    @property
    def seen(self) -> Floats:
        """The error as a model may see it, `(C,)`."""
        return within(self.error, CLIP)


class Whitening(Stage):
    """Guard, online head and correction of errors.

    Parameters
    ----------
    readings : ndarray of float64, shape (T, C)
        Readings of normal operation, from which units follow.
    n_lags, forgetting, half_life
        As in `HostConfig`.
    """

    STATE = ("center", "spread", "guard", "head", "correction", "gap")

    def __init__(
        self, readings: Floats, *, n_lags: int, forgetting: float, half_life: float
    ) -> None:
        channels = readings.shape[1]
        self.center, self.spread = find_units(readings)
        changes = np.diff((readings - self.center) / self.spread, axis=0)
        changes = np.where(np.isnan(changes).all(0), 0.0, changes)
        usual = 1.5 * np.sqrt(np.nanmedian(changes**2, 0))  # a quartile of a normal distribution
        nothing = np.zeros(channels)
        self.gap = nothing.copy()
        self.guard = InputGuard(channels)
        self.head = OnlineHead(channels, n_lags=n_lags, forgetting=forgetting)
        self.correction = Correction(nothing, np.maximum(usual, SMALLEST), half_life=half_life)

    def step(self, reading: Floats) -> Innovation:
        """Take a raw reading `(C,)`."""
        value = (reading - self.center) / self.spread
        forecast, scale = self.head.forecast(), self.correction.scale
        self.head.update(self.guard.step(value, forecast, scale), forecast, scale)
        location = self.correction.location
        there, gap = is_there(value), self.gap
        self.gap = np.where(there, 0.0, gap + 1)
        # After a gap the forecast looks further ahead: at worst as a random walk.
        wider = np.sqrt(1 + gap)
        error = self.correction.step((value - forecast) / wider)
        expected = (forecast + location * wider) * self.spread + self.center
        return Innovation(value, there, error, expected, scale * wider * self.spread, gap)


def find_units(readings: Floats) -> tuple[Floats, Floats]:
    """Return center and spread `(C,)` that a share of bad readings does not move."""
    known = np.where(np.isnan(readings).all(0), 0.0, readings)
    low, center, high = np.nanquantile(known, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / 3.29  # of a normal distribution
    least = 1e-9 * np.maximum(np.abs(center), 1e-9)
    spread = np.where(spread > least, spread, np.nanstd(known, axis=0))
    return center, np.where(spread > least, spread, 1.0)
