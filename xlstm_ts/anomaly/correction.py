"""Errors in units of those before them."""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there, within

WINSOR = 3.0


class Correction(Stage):
    """Running location and scale of errors, each update winsorised at three scales.

    Parameters
    ----------
    location, scale : ndarray of float64, shape (..., C)
        What to start from.
    half_life : float or ndarray of float64, shape (..., 1)
        Readings after which the weight of one has halved.
    """

    STATE = ("location", "variance", "floor")

    def __init__(self, location: Floats, scale: Floats, *, half_life: Floats | float) -> None:
        self.location, self.variance = location.copy(), scale**2
        # A scale of nothing would make any reading a surprise.
        self.floor = 1e-4 * self.variance
        self.share = np.log(2) / half_life

    @property
    def scale(self) -> Floats:
        """The running scale of errors, `(..., C)`."""
        return np.sqrt(self.variance)

    def step(self, error: Floats) -> Floats:
        """Return errors `(..., C)` in units of those before them, and take them in.

        NaN is missing.
        """
        scale = self.scale
        off = error - self.location
        there = is_there(off)
        known = within(np.where(there, off, 0.0), WINSOR * scale)
        self.location = self.location + self.share * known
        moved = self.variance + self.share * (known**2 - self.variance)
        self.variance = np.where(there, np.maximum(moved, self.floor), self.variance)
        return off / scale
