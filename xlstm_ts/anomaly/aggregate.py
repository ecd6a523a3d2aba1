"""Two scores of all channels: of the reading now, and of the last stretch."""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly.evidence import Scores
from xlstm_ts.anomaly.stages import Floats, Stage, is_there, within

MOST = 7.0  # of a normal score, for the stretch


class Aggregate(Stage):
    """The mean square of normal scores over channels, now and, by a running mean, lately.

    The score of now looks at the errors of the model. That of the stretch looks at those of the
    online head too, which an anomaly cannot talk into expecting more of it. Squares have the tail
    of an exponential distribution where scores are normal, which is what `Tail` continues; the
    running mean is of log(1 + root), of scores within +-7, so that one reading does not fill it.

    Parameters
    ----------
    span : float
        Span of the running mean, in readings.
    usual : float, default=1
        The score of a stretch that a stream starts from.
    """

    STATE = ("running",)

    def __init__(self, *, span: float, usual: float = 1.0) -> None:
        self.share = 2 / (span + 1)
        self.running = math.log1p(math.sqrt(usual))

    def step(self, scores: Scores) -> tuple[float, float]:
        """Return the score of now and that of the stretch; NaN where there is no evidence."""
        model = _mean_square(scores.model)
        if math.isnan(model):
            return math.nan, math.nan
        both = sum(_mean_square(within(part, MOST)) for part in scores) / 2
        self.running += self.share * (math.log1p(math.sqrt(both)) - self.running)
        return model, math.expm1(self.running) ** 2


def _mean_square(z: Floats) -> float:
    """Return the mean square; a missing channel counts as an ordinary one.

    Otherwise a few channels alone would be taken for the mean of all.
    """
    squares = z * z
    there = is_there(squares)
    if there.all():
        return float(squares.mean())
    return float(np.where(there, squares, 1.0).mean()) if there.any() else math.nan
