"""The nodes from a raw score to decades: `xlstm_ts.anomaly.tail` and `feedback`.

How the tails are comes in as numbers, for they are fitted outside of the graph; the feedback of the
rate learns inside. Letters of shapes: B batch, n scores, J decades with a threshold.
"""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly import feedback, tail
from xlstm_ts.anomaly.feedback import DECADES, RateFeedback
from xlstm_ts.anomaly.tail import Tail
from xlstm_ts.export.stages import MIDDLE, ONE, ZERO, StageNodes

PARAMETERS = 7  # of a tail
NEVER = -1e9  # below any threshold


def parameters_of(one: Tail) -> list[float]:
    """Return the four knots of a tail, the surprise at the last, shape and size beyond it."""
    return [*one.knots, -math.log10(one.rate), one.shape, one.size]


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


def write_feedback(n: StageNodes, surprise: str, learns: str, stage: RateFeedback) -> str:
    """Write `RateFeedback` of a surprise `(B, 1)`, which is taken in where it `learns`."""
    g, decades, steps = n.g, np.array(DECADES), np.array(feedback.STEPS)
    shifts = n.carry("shifts", np.array(stage.shifts))
    starts = n.carry("shift_starts", np.array(stage.starts))
    quiet = n.carry("quiet", np.array(stage.quiet, np.float64))
    longest = np.array(feedback.QUIET, np.float64)
    corrected = _write_corrected(n, surprise, shifts)
    is_crossed = g("Not", g("Less", corrected, decades))
    began = g("Where", g("And", is_crossed, g("Greater", quiet, longest - 0.5)), shifts, starts)
    most = g("Add", began, np.float64(feedback.MOST_AT_ONCE))
    most = g("Min", most, np.float64(feedback.HIGHEST))
    higher = g("Max", shifts, g("Min", most, g("Add", shifts, steps)))
    lower = g("Max", g("Sub", shifts, steps * 10.0**-decades), np.float64(feedback.LOWEST))
    calm = g("Where", is_crossed, ZERO, g("Min", g("Add", quiet, ONE), longest))
    n.keep("shifts", g("Where", learns, g("Where", is_crossed, higher, lower), shifts))
    n.keep("shift_starts", g("Where", learns, began, starts))
    n.keep("quiet", g("Where", learns, calm, quiet))
    return corrected


def _write_corrected(n: StageNodes, surprise: str, shifts: str) -> str:
    """Write `RateFeedback.correct`: the decades between thresholds, and what is above the last."""
    g, thresholds = n.g, _write_thresholds(n, shifts)
    last = g.cut(thresholds, axis=1, start=-1)
    nothing = g("Sub", last, last)  # the threshold of no decade, in each stream of the batch
    below = g("Concat", nothing, g.cut(thresholds, axis=1, start=0, stop=-1), axis=1)
    share = g("Clip", _share(n, surprise, below, thresholds), ZERO, ONE)
    return g("Add", g("ReduceSum", share, MIDDLE), g("Max", g("Sub", surprise, last), ZERO))


def _write_thresholds(n: StageNodes, shifts: str) -> str:
    """Write the thresholds `(B, J)`, each a little above the one before at least."""
    g, places = n.g, np.arange(len(DECADES))
    far = places[:, None] - places
    # A threshold, or the first that pushes it up: row j has what each before it asks for.
    apart = np.where(far >= 0, feedback.NARROWEST * far, NEVER)
    least = feedback.NARROWEST * (places + 1)
    wanted = n.rows(g("Max", g("Add", shifts, np.array(DECADES)), least))
    return g("ReduceMax", g("Add", wanted, apart), axes=[2], keepdims=0)


def _share(n: StageNodes, value: str, low: str, high: str) -> str:
    """Write how far a value is on the way from one to the other."""
    return n.g("Div", n.g("Sub", value, low), n.g("Sub", high, low))
