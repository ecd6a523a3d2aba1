"""How channels go together: what each should read by all the others at the same moment.

Sensors of one thing may part while each by itself looks as always; no forecast from the past of a
channel sees that. For channels of a joint normal distribution the best linear guess of one from the
others leaves (P d)_c / P_cc, where d is the distance from the mean and P the inverse covariance
(D. R. Cox and N. Wermuth, "Multivariate Dependencies", 1996, section 3.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there

MEMORY = 5000  # readings: a relation is learnt slowly, or a fault would become one
REFRESH = 50  # readings between two inversions: they cost the most
# Of the variance of a channel that no other explains, at least: channels that go together exactly
# have no inverse.
OWN = 0.01
LEAST = 1e-6  # variance of a channel that stands still, in spreads


class Relation(Stage):
    """Running mean and covariance of the channels, and what is left of each beside the others.

    Attributes
    ----------
    mean : ndarray of float64, shape (C,)
        Of the channels in their units.
    covariance, precision : ndarray of float64, shape (C, C)
        The running one, and the inverse of it as it was at the last refresh.
    count : ndarray of int
        Readings taken, and as many as there are channels: so many the unit matrix, from which the
        covariance starts, is worth.
    """

    STATE = ("mean", "covariance", "precision", "count")

    def __init__(self, n_channels: int) -> None:
        self.mean, self.count = np.zeros(n_channels), np.array(n_channels)
        self.covariance: Floats = np.eye(n_channels)
        self.precision: Floats = np.eye(n_channels)

    def step(self, value: Floats) -> Floats:
        """Return what each channel of `(..., C)` is off from what the others tell, and take it in.

        NaN is missing. In its place stands what the others tell, with the variance that they leave
        (the E step of expectation maximisation): otherwise a gap would undo the relation.
        """
        there = is_there(value)
        known: Any = there.any(-1)
        off = np.where(known[..., None], value - self.mean, 0.0)
        unknown = np.zeros_like(self.covariance)
        for row in map(tuple, np.argwhere(known & ~there.all(-1))):
            unknown[row] = _complete(off[row], there[row], self.precision[row])
        diagonal = self.precision.diagonal(axis1=-2, axis2=-1)
        left = (self.precision @ off[..., None])[..., 0] / diagonal
        self.count = self.count + known
        share = known / np.minimum(self.count, MEMORY)
        self.mean = self.mean + share[..., None] * off
        moved = off[..., :, None] * off[..., None, :] + unknown - self.covariance
        self.covariance = self.covariance + share[..., None, None] * moved
        due = known & (self.count % REFRESH == 0)
        if due.any():
            self.precision[due] = _inverse(self.covariance[due])
        return np.where(there, left, np.nan)


def _complete(off: Floats, there: Mask, precision: Floats) -> Floats:
    """Put what the others tell in the place of what is missing; return the variance left to it."""
    gone, unknown = ~there, np.zeros_like(precision)
    left = np.linalg.inv(precision[np.ix_(gone, gone)])
    off[gone] = -left @ (precision[np.ix_(gone, there)] @ off[there])
    unknown[np.ix_(gone, gone)] = left
    return unknown


def _inverse(covariance: Floats) -> Floats:
    """Return the inverse of covariances `(..., C, C)`, to which each channel adds some of its own.

    No channel is explained by the others without rest.
    """
    own = OWN * covariance.diagonal(axis1=-2, axis2=-1) + LEAST
    inverse = np.linalg.inv((1 - OWN) * covariance + own[..., None] * np.eye(own.shape[-1]))
    return inverse.astype(np.float64)
