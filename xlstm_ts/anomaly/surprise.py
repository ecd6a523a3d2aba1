"""How surprising a reading is: its error in running units, as the normal score of a Student-t."""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there, within

WINSOR = 3.0
BOUND = 7.0  # of errors that Student's t is fitted to
CLAMP = 40.0  # of normal scores: beyond anything rare, so that no two of the rarest tie
DEGREES = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 30.0, 100.0)
SCALES = np.geomspace(0.3, 1.2, 13)


class Correction(Stage):
    """Running location and scale of errors, each update winsorised at three scales.

    Parameters
    ----------
    location, scale : ndarray of float64, shape (C,)
        What to start from.
    half_life : float
        Readings after which the weight of one has halved.
    """

    STATE = ("location", "variance", "floor")

    def __init__(self, location: Floats, scale: Floats, *, half_life: float) -> None:
        self.location, self.variance = location.copy(), scale**2
        # A scale of nothing would make any reading a surprise.
        self.floor = 1e-4 * self.variance
        self.share = np.log(2) / half_life

    @property
    def scale(self) -> Floats:
        """The running scale of errors, `(C,)`."""
        return np.sqrt(self.variance)

    def step(self, error: Floats) -> Floats:
        """Return an error `(C,)` in units of those before it, and take it in; NaN is missing."""
        scale = self.scale
        off = error - self.location
        there = is_there(off)
        known = within(np.where(there, off, 0.0), WINSOR * scale)
        self.location = self.location + self.share * known
        moved = self.variance + self.share * (known**2 - self.variance)
        self.variance = np.where(there, np.maximum(moved, self.floor), self.variance)
        return off / scale


def normal_score(error: Floats, *, degrees: Floats, scale: Floats) -> Floats:
    """Return the normal score of errors under Student's t, within +-40; NaN stays NaN.

    The normal quantile of the t distribution function, by the closed form of D. L. Wallace,
    "Bounds on normal approximations to Student's and the chi-square distributions", 1959: within
    0.1 of the score at two degrees of freedom and 0.03 from ten on, and made of operators that
    every runtime has. `Tail` makes up for the rest.

    Parameters
    ----------
    error : ndarray of float64, shape (..., C)
        Errors in running units.
    degrees, scale : ndarray of float64, shape (C,)
        Degrees of freedom, and scale of the t distribution in these units.
    """
    ratio = error / scale
    correction = (8 * degrees + 1) / (8 * degrees + 3)
    score = correction * np.sqrt(degrees * np.log1p(ratio**2 / degrees))
    return np.copysign(np.minimum(score, CLAMP), ratio)


def fit_student(errors: Floats) -> tuple[Floats, Floats]:
    """Return degrees of freedom and scale `(C,)` of most likelihood, out of a grid.

    Parameters
    ----------
    errors : ndarray of float64, shape (T, C)
        Errors in running units; NaN is missing. Those beyond 7 count as 7: what lies out there in
        training is as likely an anomaly.
    """
    bounded = np.clip(errors, -BOUND, BOUND)
    likelihood = np.stack([
        np.nanmean(_log_density(bounded / scale, degrees), 0) - np.log(scale)
        for degrees in DEGREES
        for scale in SCALES
    ])  # fmt: skip
    best = likelihood.argmax(0)
    return np.array(DEGREES)[best // len(SCALES)], SCALES[best % len(SCALES)]


def _log_density(ratio: Floats, degrees: float) -> Floats:
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    constant -= 0.5 * math.log(degrees * math.pi)
    return constant - (degrees + 1) / 2 * np.log1p(ratio**2 / degrees)
