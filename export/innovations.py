"""The nodes in front of a detector's model: a reading becomes what nothing before it foretold.

They are `xlstm_ts.anomaly.whitening` and, behind it, `evidence`. Letters of shapes: B batch, C
channels, L lags of the online head, W = 1 + L its weights, Q quantile levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly import guard, head
from xlstm_ts.anomaly.evidence import SUREST, ForecastErrors
from xlstm_ts.anomaly.guard import InputGuard
from xlstm_ts.anomaly.head import OnlineHead
from xlstm_ts.anomaly.whitening import Whitening
from xlstm_ts.export.contract import BATCH
from xlstm_ts.export.stages import LAST, ONE, ZERO, CorrectionNodes, Field, StageNodes

# A reading beyond float32 is missing, as NaN is: streams in Python refuse it.
TOO_LARGE = np.nextafter(np.float64(np.finfo(np.float32).max), np.inf)
RELATION = "relation"
BEFORE = "forecast_before"


class Reading(NamedTuple):
    """A reading `(B, C)` in units of its channels, 0 where missing; which are there; the gap."""

    known: str
    there: str
    gap: str


class Innovation(NamedTuple):
    """Errors `(B, C)` of a reading in running units, and where another channel has told of it."""

    error: str
    recent: str
    relation: str
    is_told: str


def write_reading(n: StageNodes, reading: str, front: Whitening) -> Reading:
    """Write units, what is missing, and the missing readings right before."""
    g = n.g
    value = g("Div", g("Sub", reading, front.center), front.spread)
    there = g("Less", g("Abs", reading), TOO_LARGE)  # false for NaN
    gap = n.carry("gap", front.gap)
    n.keep("gap", g("Where", there, ZERO, g("Add", gap, ONE)))
    return Reading(g("Where", there, value, ZERO), there, gap)


def write_innovation(n: StageNodes, reading: Reading, front: Whitening) -> Innovation:
    """Write `Whitening.step`, and in raw units what was expected and how surely."""
    g, (known, there, gap) = n.g, reading
    # After a gap the forecast looks further ahead: at worst as a random walk.
    wider = g("Sqrt", g("Add", gap, ONE))
    has_others = n.channels > 1
    errors = CorrectionNodes(n, "error", front.correction, slice(3 if has_others else 2))
    location, scale = n.row(errors.location, 0), n.row(errors.scale, 0)
    forecast, off = _write_head(n, reading, front, scale)
    expected = g("Add", forecast, g("Mul", location, wider))
    n.tell("expected", g("Add", g("Mul", expected, front.spread), front.center))
    n.tell("width", g("Mul", g("Mul", scale, wider), front.spread))
    values, marks = [g("Div", off, wider), known], [there, there]
    if has_others:
        left = g.input(RELATION, n.each)
        values.append(left)
        marks.append(g("And", there, g("Not", g("IsNaN", left))))
    found = errors.step(n.rows(*values), n.rows(*marks))
    error, recent = (n.row(found, place) for place in (0, 1))
    if has_others:
        return Innovation(error, recent, n.row(found, 2), marks[2])
    return Innovation(error, recent, recent, g("And", there, np.False_))  # there is none


def _write_head(n: StageNodes, reading: Reading, front: Whitening, scale: str) -> tuple[str, str]:
    """Write `OnlineHead`; return the forecast and how far the reading is off it."""
    g, stage, there = n.g, front.head, reading.there
    width = stage.weights.shape[1]
    ones = np.ones((n.channels, 1))
    seen = n.carry("seen", np.concatenate((ones, stage.lags), 1))
    weights, doubt = n.carry("weights", stage.weights), n.carry("doubt", stage.doubt)
    forecast = g("ReduceSum", g("Mul", weights, seen), LAST, keepdims=0)
    off = g("Where", there, g("Sub", reading.known, forecast), ZERO)
    guarded = _write_guard(n, off, there, scale, front.guard)
    error = n.within(guarded, g("Mul", scale, np.float64(head.WINSOR)))
    informed = g("MatMul", doubt, g("Unsqueeze", seen, np.array([3])))
    told = g("MatMul", g("Unsqueeze", seen, LAST), informed)
    gain = g("Div", informed, g("Add", told, np.float64(stage.forgetting)))
    step = g("Mul", g("Reshape", gain, np.array([0, 0, width])), g("Unsqueeze", error, LAST))
    n.keep("weights", g("Add", weights, step))
    across = g("Reshape", informed, np.array([0, 0, 1, width]))
    learnt = _forgotten(n, g("Sub", doubt, g("MatMul", gain, across)), stage)
    n.keep("doubt", g("Where", g("Unsqueeze", there, np.array([2, 3])), learnt, doubt))
    lags = g.cut(seen, axis=2, start=1)
    low = g("Sub", g("ReduceMin", lags, axes=[2], keepdims=0), np.float64(head.STRAY))
    high = g("Add", g("ReduceMax", lags, axes=[2], keepdims=0), np.float64(head.STRAY))
    guess = g("Min", g("Max", forecast, low), high)
    newest = g("Where", there, g("Add", forecast, guarded), guess)
    one, kept = (g.cut(seen, axis=2, start=start, stop=stop) for start, stop in ((0, 1), (1, -1)))
    n.keep("seen", g("Concat", one, g("Unsqueeze", newest, LAST), kept, axis=2))
    return forecast, off


def _forgotten(n: StageNodes, learnt: str, stage: OnlineHead) -> str:
    """Write the forgetting of the doubt `(B, C, W, W)`, which has a limit."""
    g, width = n.g, stage.weights.shape[1]
    trace = g("ReduceSum", g("Mul", learnt, np.eye(width)), np.array([2, 3]))
    forgets = g("Less", trace, np.float64(head.MOST_DOUBT * width))
    return g("Mul", learnt, g("Where", forgets, np.float64(1 / stage.forgetting), ONE))


def _write_guard(n: StageNodes, off: str, there: str, scale: str, stage: InputGuard) -> str:
    """Write `InputGuard.step` of how far a reading is off what was expected."""
    g, most = n.g, n.g("Mul", scale, np.float64(guard.CLIP))
    beyond = n.carry("beyond", stage.beyond)
    counted = g("Where", g("Greater", g("Abs", off), most), g("Add", beyond, ONE), ZERO)
    counted = g("Where", there, counted, beyond)
    n.keep("beyond", counted)
    is_lasting = g("Greater", counted, np.float64(guard.LASTING - 0.5))
    return g("Where", is_lasting, off, n.within(off, most))


def write_joint_error(
    n: StageNodes, error: str, there: str, stage: ForecastErrors, before: Field
) -> str:
    """Write `ForecastErrors.step`, without the sign, which nothing asks for.

    `before` is the forecast of the model at the reading before, float32 `(B, horizon, C, Q)`.
    """
    g, levels = n.g, before.initial.shape[-1]
    n.state.append(before)
    given = g.input(before.name, (BATCH, *before.initial.shape), np.float32)
    quantiles = g.cast(n.row(given, 0), np.float64)
    low, middle, high = (n.row(quantiles, level, axis=2) for level in (0, levels // 2, levels - 1))
    width = g("Div", g("Sub", high, low), stage.usual)
    is_unknown = g("IsNaN", width)
    middle = g("Where", is_unknown, ZERO, middle)
    width = g("Clip", g("Where", is_unknown, ONE, width), np.float64(SUREST), ONE)
    known = g("Where", there, error, ZERO)
    own = CorrectionNodes(n, "own", stage.correction)
    own_error = own.step(g("Div", g("Sub", known, middle), width), there)
    both = (g("Add", g("Abs", one), ONE) for one in (known, own_error))
    return g("Sub", g("Sqrt", g("Mul", *both)), ONE)
