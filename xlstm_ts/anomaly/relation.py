"""How channels go together: what each should read by all the others at the same moment.

Sensors of one thing may part while each by itself looks as always; no forecast from the past of a
channel sees that. For channels of a joint normal distribution the best linear guess of one from the
others leaves (P d)_c / P_cc, where d is the distance from the mean and P the inverse covariance
(D. R. Cox and N. Wermuth, "Multivariate Dependencies", 1996, section 3.4).
"""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there

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
    count : int
        Readings taken, and as many as there are channels: so many the unit matrix, from which the
        covariance starts, is worth.
    """

    STATE = ("mean", "covariance", "precision", "count")

    def __init__(self, n_channels: int) -> None:
        self.mean, self.count = np.zeros(n_channels), n_channels
        self.covariance: Floats = np.eye(n_channels)
        self.precision: Floats = np.eye(n_channels)

    def step(self, value: Floats) -> Floats:
        """Return what each channel of `(C,)` is off from what the others tell, and take it in.

        NaN is missing. In its place stands what the others tell, with the variance that they leave
        (the E step of expectation maximisation): otherwise a gap would undo the relation.
        """
        there = is_there(value)
        if not there.any():
            return value
        off = value - self.mean
        product = off[:, None] * off
        if not there.all():
            gone = ~there
            unknown = np.linalg.inv(self.precision[np.ix_(gone, gone)])
            off[gone] = -unknown @ (self.precision[np.ix_(gone, there)] @ off[there])
            product = off[:, None] * off
            product[np.ix_(gone, gone)] += unknown
        left = (self.precision @ off) / self.precision.diagonal()
        self.count += 1
        share = 1 / min(self.count, MEMORY)
        self.mean = self.mean + share * off
        self.covariance = self.covariance + share * (product - self.covariance)
        if self.count % REFRESH == 0:
            own = np.diag(OWN * self.covariance.diagonal() + LEAST)
            inverse = np.linalg.inv((1 - OWN) * self.covariance + own)
            self.precision = inverse.astype(np.float64)
        return np.where(there, left, np.nan)
