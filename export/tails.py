"""The nodes from a raw score to decades: `xlstm_ts.anomaly.tail` and `feedback`.

What the tails and thresholds are comes in as numbers, for they go on learning outside of the graph.
Letters of shapes: B batch, n scores.
"""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly import tail
from xlstm_ts.anomaly.calibration import Calibrator
from xlstm_ts.anomaly.feedback import DECADES, NARROWEST
from xlstm_ts.anomaly.tail import Tail
from xlstm_ts.export.stages import MIDDLE, ONE, ZERO, StageNodes

PARAMETERS = 7  # of a tail
N_THRESHOLDS = 1 + len(DECADES)


def parameters_of(one: Tail) -> list[float]:
    """Return the four knots of a tail, the surprise at the last, shape and size beyond it."""
    return [*one.knots.tolist(), -math.log10(one.rate), one.shape, one.size]


def thresholds_of(calibrator: Calibrator) -> list[float]:
    """Return where the feedback of the rate has put 0, 1, 2, 3 and 4 decades."""
    reached = [0.0]
    for decade, shift in zip(DECADES, calibrator.feedback.shifts.tolist(), strict=True):
        reached.append(max(decade + shift, reached[-1] + NARROWEST))
    return reached


def write_surprise(n: StageNodes, score: str, tails: str) -> str:
    """Write `Tail.surprise` of scores `(B, n)` by the parameters of their tails `(B, 7, n)`."""
    g = n.g
    low, half, most, start, top, shape, size = (n.row(tails, place) for place in range(PARAMETERS))
    first, second = map(np.float64, tail.LEVELS[:2])
    ratio = g("Div", g("Max", g("Sub", score, start), ZERO), size)
    is_heavy = g("Greater", shape, np.float64(1e-6))
    heavy = g("Where", is_heavy, shape, ONE)
    grown = g("Div", g("Log", g("Add", g("Mul", ratio, heavy), ONE)), heavy)
    decades = g("Div", g("Where", is_heavy, grown, ratio), np.float64(math.log(10)))
    beyond = g("Min", g("Add", top, decades), np.float64(tail.MOST))
    rise = g("Max", g("Sub", top, second), ZERO)
    upper = g("Add", g("Mul", rise, _share(n, score, most, start)), second)
    middle = g("Add", g("Mul", _share(n, score, half, most), second - first), first)
    lower = g("Mul", g("Max", _share(n, score, low, half), ZERO), first)
    surprise = g("Where", g("Greater", score, half), middle, lower)
    surprise = g("Where", g("Greater", score, most), upper, surprise)
    return g("Where", g("Greater", score, start), beyond, surprise)


def write_correction(n: StageNodes, surprise: str, thresholds: str) -> str:
    """Write `RateFeedback.correct`: the decades that lie between thresholds `(B, 5)`."""
    g, count = n.g, len(DECADES)
    low = g.cut(thresholds, axis=1, start=0, stop=count)
    high, last = (g.cut(thresholds, axis=1, start=start) for start in (1, count))
    share = g("Clip", _share(n, surprise, low, high), ZERO, ONE)
    above = g("Max", g("Sub", surprise, last), ZERO)
    return g("Add", g("ReduceSum", share, MIDDLE), above)


def _share(n: StageNodes, value: str, low: str, high: str) -> str:
    """Write how far a value is on the way from one to the other."""
    return n.g("Div", n.g("Sub", value, low), n.g("Sub", high, low))
