"""Two scores of a reading of all channels: of now, and of the last stretch."""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there


class Aggregate(Stage):
    """The root mean square of normal scores, and the running mean of its logarithm.

    Parameters
    ----------
    span : float
        Span of the running mean, in readings.
    """

    STATE = ("running",)

    def __init__(self, *, span: float) -> None:
        self.share = 2 / (span + 1)
        self.running = math.log(2)  # of scores of 1

    def step(self, z: Floats) -> tuple[float, float]:
        """Return the score of now and that of the stretch, of normal scores `(C,)`.

        A missing channel counts as an ordinary one, so that a few channels alone are not taken for
        the mean of all; without any nothing is scored (NaN) and nothing changes.
        """
        squares = z * z
        there = is_there(squares)
        if not there.any():
            return math.nan, math.nan
        now = math.sqrt(float(np.where(there, squares, 1.0).mean()))
        self.running += self.share * (math.log1p(now) - self.running)
        return now, self.running
