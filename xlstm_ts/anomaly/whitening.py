"""The front of the chain: a reading becomes an innovation, what nothing before it foretold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.correction import Correction
from xlstm_ts.anomaly.guard import InputGuard
from xlstm_ts.anomaly.head import OnlineHead
from xlstm_ts.anomaly.relation import Relation
from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there, side_by_side, within

CLIP = 3.0  # of errors that a model sees: it is not to expect what is wrong
FARTHEST = 8.0  # spreads, of readings that it sees
RECENT = 140.0  # half-life in readings of what a reading is held against as the last ones
SMALLEST = 1e-3  # scale of errors to start from, in spreads


class Innovation(NamedTuple):
    """A reading after the front of the chain.

    Attributes
    ----------
    value : ndarray of float64, shape (..., C)
        The reading in units of its channel; NaN is missing.
    there : ndarray of bool, shape (..., C)
        Which channels have one.
    error : ndarray of float64, shape (..., C)
        The error of the online forecast, in units of the errors before it; NaN is missing.
    expected, scale : ndarray of float64, shape (..., C)
        The online forecast, and the scale of its errors, both in raw units.
    gap : ndarray of float64, shape (..., C)
        Missing readings right before it.
    recent, relation : ndarray of float64, shape (..., C)
        How far the reading is from the last ones, and from what the other channels tell, in running
        units; NaN where it is missing, and of the relation where there is no other channel.
    """

    value: Floats
    there: Mask
    error: Floats
    expected: Floats
    scale: Floats
    gap: Floats
    recent: Floats
    relation: Floats

    @property
    def seen(self) -> Floats:
        """The error as a model may see it, `(..., C)`."""
        return within(self.error, CLIP)

    @property
    def seen_value(self) -> Floats:
        """The reading as a model may see it, `(..., C)`."""
        return within(self.value, FARTHEST)


class Whitening(Stage):
    """Guard, online head and correction of errors; beside them the last readings and the relation.

    Parameters
    ----------
    readings : ndarray of float64, shape (T, C)
        Readings of normal operation, from which units follow.
    n_lags, forgetting, half_life
        As in `HostConfig`.
    """

    STATE = (
        "center", "spread", "guard", "head", "relation", "correction", "gap",
    )  # fmt: skip

    def __init__(
        self, readings: Floats, *, n_lags: int, forgetting: float, half_life: float
    ) -> None:
        channels = readings.shape[1]
        self.center, self.spread = find_units(readings)
        usual = _usual_change((readings - self.center) / self.spread)
        self.gap = np.zeros(channels)
        self.guard = InputGuard(channels)
        self.head = OnlineHead(channels, n_lags=n_lags, forgetting=forgetting)
        self.relation = Relation(channels)
        # Of errors of the forecast, readings, and what the other channels leave, in this order.
        scale = np.ones((3, channels))
        scale[0] = np.maximum(usual, SMALLEST)
        lives = np.array([[half_life], [RECENT], [half_life]])
        self.correction = Correction(np.zeros((3, channels)), scale, half_life=lives)

    def reset(self) -> None:
        """Forget the last readings, and keep what they have taught."""
        self.head.lags[:], self.guard.beyond[:], self.gap[:] = 0.0, 0.0, 0.0

    def step(self, reading: Floats) -> Innovation:
        """Take a raw reading `(..., C)`."""
        value = (reading - self.center) / self.spread
        forecast, scale = self.head.forecast(), self.correction.scale[..., 0, :]
        self.head.update(self.guard.step(value, forecast, scale), forecast, scale)
        location = self.correction.location[..., 0, :]
        there, gap = is_there(value), self.gap
        self.gap = np.where(there, 0.0, gap + 1)
        # After a gap the forecast looks further ahead: at worst as a random walk.
        wider = np.sqrt(1 + gap)
        left = self._left(value)
        errors = self.correction.step(side_by_side((value - forecast) / wider, value, left))
        error, recent, relation = (errors[..., place, :] for place in range(3))
        expected = (forecast + location * wider) * self.spread + self.center
        width = scale * wider * self.spread
        return Innovation(value, there, error, expected, width, gap, recent, relation)

    def _left(self, value: Floats) -> Floats:
        """Return what the other channels leave of each; NaN where there is no other."""
        if value.shape[-1] == 1:
            return np.full_like(value, np.nan)
        return self.relation.step(within(value, FARTHEST))


def _usual_change(values: Floats) -> Floats:
    """Return the scale `(C,)` of what lies between a reading and the one known before it."""
    known = (channel[is_there(channel)] for channel in values.T)
    changes = [np.diff(channel) if len(channel) > 1 else np.zeros(1) for channel in known]
    # The median of squares is 0.45 of their mean where changes are normal.
    return np.array([1.5 * np.sqrt(np.median(change**2)) for change in changes])


def find_units(readings: Floats) -> tuple[Floats, Floats]:
    """Return center and spread `(C,)` that a share of bad readings does not move."""
    known = np.where(np.isnan(readings).all(0), 0.0, readings)
    low, center, high = np.nanquantile(known, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / 3.29  # of a normal distribution
    least = 1e-9 * np.maximum(np.abs(center), 1e-9)
    spread = np.where(spread > least, spread, np.nanstd(known, axis=0))
    return center, np.where(spread > least, spread, 1.0)
