"""What a reading may do to the models behind: one glitch must not poison their state."""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there

WINSOR = 4.0  # spreads that one reading may lie off when level and spread are updated
CLIP = 8.0
# So many readings in a row beyond the same limit are no glitch but a level: they pass.
LASTING = 3


class InputGuard(Stage):
    """Clips readings to eight running spreads around a running level, channel by channel.

    What lies beyond for three readings in a row passes as it is: a level shift is to be followed
    and not to be cut for ever.

    Parameters
    ----------
    level, spread : ndarray of float64, shape (C,)
        Level and spread of the channels to start from.
    half_life : float
        Readings after which the weight of one has halved.

    Attributes
    ----------
    level, variance, beyond : ndarray of float64, shape (C,)
        The state; `beyond` counts readings in a row above (positive) or below the limits.
    floor : ndarray of float64, shape (C,)
        The least variance.
    """

    STATE = ("level", "variance", "beyond", "floor")

    def __init__(self, level: Floats, spread: Floats, *, half_life: float) -> None:
        self.level, self.variance = level.copy(), spread**2
        self.floor = 1e-6 * self.variance
        self.beyond = np.zeros(len(level))
        self.share = np.log(2) / half_life

    def step(self, reading: Floats) -> Floats:
        """Return the reading `(C,)` as the models may see it; NaN stays missing."""
        spread = np.sqrt(self.variance)
        off = reading - self.level
        there = is_there(off)
        side = np.sign(np.where(np.abs(off) > CLIP * spread, off, 0.0))
        same = np.where(side == np.sign(self.beyond), self.beyond + side, side)
        self.beyond = np.where(there, same, self.beyond)
        passed = np.abs(self.beyond) >= LASTING
        clipped = np.where(passed, off, np.clip(off, -CLIP * spread, CLIP * spread))
        guarded = self.level + clipped
        known = np.clip(np.where(there, off, 0.0), -WINSOR * spread, WINSOR * spread)
        self.level = self.level + self.share * known
        moved = self.variance + self.share * (known**2 - self.variance)
        self.variance = np.where(there, np.maximum(moved, self.floor), self.variance)
        return guarded
