"""One raw score of all channels for each view of a reading, and one of the last stretch."""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly.evidence import Views
from xlstm_ts.anomaly.stages import Mask, Stage, is_there

MOST = 1e6  # of an error: beyond anything rare, so that no two of the rarest tie
ORDINARY = 0.5  # mean of log(1 + |error|) where errors are normal
NAMES = ("point", "range", "level", "recent", "relation")


class Aggregate(Stage):
    """Mean squares over channels of the views, and a running mean of errors of the forecast.

    Squares have the tail of an exponential distribution where errors are normal, which is what
    `Tail` continues. The running mean is of log(1 + |error|), over channels too, so that neither
    one reading nor one channel fills it: it is high where much is a little off.

    Parameters
    ----------
    span : float
        Span of the running mean, in readings.
    usual : float, default=0.5
        The score of a stretch that a stream starts from.
    """

    STATE = ("running",)

    def __init__(self, *, span: float, usual: float = ORDINARY) -> None:
        self.share = 2 / (span + 1)
        self.running = usual

    def step(self, views: Views) -> list[float]:
        """Return raw scores in the order of `NAMES`; NaN where there is no evidence."""
        errors = np.array(views)
        squares = np.minimum(errors * errors, MOST**2)
        lately = np.log1p(np.minimum(np.abs(errors[0]), MOST))
        there = is_there(squares)
        if not there.all():
            # A missing channel counts as an ordinary one: otherwise a few channels alone would be
            # taken for the mean of all.
            speaks: Mask = np.any(there, axis=1)
            squares = np.where(there, squares, np.where(speaks, 1.0, np.nan)[:, None])
            lately = np.where(there[0], lately, ORDINARY)
            if not speaks[0]:
                return [math.nan] * len(NAMES)
        channels = errors.shape[1]
        self.running += self.share * (float(lately.sum()) / channels - self.running)
        point, level, recent, relation = (squares.sum(1) / channels).tolist()
        return [point, self.running, level, recent, relation]
