"""The graph of a detector as a whole: a raw reading in, its anomaly score out.

What `xlstm_ts.anomaly` computes on the host stands here in plain operators, in float64 as there:
guard, online head, running location and scale of errors, the views of a reading, raw scores and
their tails, feedback of the rate, the slow channel and the rule for stuck sensors. Behind them
stands the step graph of the model, in float32. A runtime needs no other code for a score. What goes
on learning on the host and is no arithmetic of one reading comes in as inputs: how the tails are
(`tails`), and what the other channels leave of each (`relation`).

Letters of shapes: B batch, C channels, V views, S raw scores.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from xlstm_ts.anomaly import aggregate, slow, whitening
from xlstm_ts.anomaly.decider import VIEW_OF, Learning
from xlstm_ts.anomaly.evidence import Views
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.export.contract import (
    BATCH,
    COVARIATES,
    FORECAST,
    READING,
    SCORES_KEY,
    SCORES_VERSION,
    Contract,
    next_name,
)
from xlstm_ts.export.graph import read_contract
from xlstm_ts.export.innovations import (
    BEFORE,
    RELATION,
    Reading,
    write_innovation,
    write_joint_error,
    write_reading,
)
from xlstm_ts.export.stages import MIDDLE, MISSING, ONE, ZERO, Array, Field, StageNodes
from xlstm_ts.export.tails import (
    PARAMETERS,
    parameters_of,
    write_feedback,
    write_surprise,
)

TAILS = "tails"
MODEL = "model_"  # before the names of the step graph
TIE = 1e-12  # decades: of views that say the same the first is blamed
N_VIEWS, N_SCORES = len(Views._fields), len(aggregate.NAMES)


def build_score_graph(host: AnomalyHost, step: onnx.ModelProto) -> onnx.ModelProto:
    """Build the graph that scores readings by itself.

    Parameters
    ----------
    host : AnomalyHost
        The fitted stages of a detector.
    step : onnx.ModelProto
        The step graph of its model.

    Returns
    -------
    onnx.ModelProto
        A checked model of opset 17, IR version 8, with a dynamic batch. Its metadata have, as JSON
        under the key `xlstm_ts_scores`, `channels`; `threshold`, the score from which a reading is
        in alarm; and `inputs` and `state`: for each array its `name`, `dtype`, `shape` for one
        stream (the streams of a batch follow one another along the first axis), and as `initial` in
        C order what it is before the first reading, null for NaN; of the state also `next`, the
        output that it goes on with.
    """
    fresh, contract = host.fresh(), read_contract(step)
    nodes = StageNodes(fresh.n_channels)
    _write_stages(nodes, fresh, contract)
    # What the model sees of a reading goes from one graph to the other.
    fed = [(_seen(name), f"{MODEL}{name}") for name in (READING, COVARIATES)]
    whole = compose.merge_models(
        nodes.g.model({}),
        compose.add_prefix(step, MODEL),
        io_map=fed,
        name="scores",
        producer_name=step.producer_name,
    )
    state = [one._replace(initial=one.initial[None]) for one in nodes.state]
    state += [
        Field(f"{MODEL}{one.name}", f"{MODEL}{next_name(one.name)}", _start(one.shape, one.initial))
        for one in contract.state
    ]
    record = {
        "version": SCORES_VERSION,
        "library_version": contract.library_version,
        "weights_hash": contract.weights_hash,
        "channels": contract.channels,
        "threshold": -math.log10(host.alpha),
        "inputs": [_described(name, value) for name, value in beside(fresh).items()],
        "state": [{**_described(one.name, one.initial), "next": one.next} for one in state],
    }
    del whole.metadata_props[:]
    helper.set_model_props(whole, {SCORES_KEY: json.dumps(record)})
    onnx.checker.check_model(whole, full_check=True)
    return whole


def beside(host: AnomalyHost) -> dict[str, Array]:
    """Return what a host gives the graph beside a reading, as it is now, for one stream.

    Parameters
    ----------
    host : AnomalyHost
        A fitted one.

    Returns
    -------
    dict
        `relation` `(1, C)`, of more than one channel: NaN, which says nothing, where nobody works
        out what the other channels tell. `tails` `(1, 7, 6)`: of each raw score, and of the largest
        of their surprises, the four knots, the surprise at the last, shape and size beyond it.
    """
    tails = (*host.decider.comparison.tails, host.decider.joint.tail)
    relation = {RELATION: np.full((1, host.n_channels), np.nan)} if host.n_channels > 1 else {}
    return {
        **relation,
        TAILS: np.array([parameters_of(one) for one in tails]).T[None],
    }


def _seen(name: str) -> str:
    return f"seen_{name}"


def _start(shape: tuple[int, ...], initial: float | tuple[float, ...]) -> NDArray[np.float32]:
    values = np.asarray(initial, np.float32)
    return np.broadcast_to(values, math.prod(shape)).reshape(shape)


def _described(name: str, value: NDArray[Any]) -> dict[str, Any]:
    values = [None if one != one else one for one in value.ravel().tolist()]
    shape = list(value.shape)
    return {"name": name, "dtype": str(value.dtype), "shape": shape, "initial": values}


class _Views(NamedTuple):
    """Errors `(B, V, C)` as they count, zero where there is none, and which there are."""

    errors: str
    valid: str


def _write_stages(n: StageNodes, host: AnomalyHost, contract: Contract) -> None:
    """Write all stages; what the model is to see comes out as float32."""
    g, levels = n.g, len(contract.quantiles)
    reading = write_reading(n, g.input(READING, n.each), host.whitening)
    known, there, _ = reading
    settled = _write_settling(n, reading, host)
    judged = g("And", there, settled)
    n.tell("judged", n.marked(judged))
    error, recent, relation, is_told = write_innovation(n, reading, host.whitening)
    _show(n, READING, error, there, most=whitening.CLIP)
    _show(n, COVARIATES, known, there, most=whitening.FARTHEST)
    nothing = np.full((contract.horizon, n.channels, levels), np.nan, np.float32)
    before = Field(BEFORE, f"{MODEL}{FORECAST}", nothing)
    joint = write_joint_error(n, error, there, host.scorer.errors, before)
    level, is_held, off = _write_slow(n, reading, host, judged)
    _write_stuck(n, reading, host, judged)
    errors = n.rows(joint, level, recent, relation)  # in the order of `Views`
    valid = g("And", n.rows(there, is_held, there, is_told), n.rows(settled))
    weighed = g("Div", errors, host.scorer.aggregate.regular)
    _write_scores(n, _Views(g("Where", valid, weighed, ZERO), valid), off, host)


def _show(n: StageNodes, name: str, value: str, there: str, *, most: float) -> None:
    """Hand a value to the model, cut to +-`most`."""
    shown = n.g("Where", there, n.within(value, np.float64(most)), MISSING)
    n.g.output(n.g.cast(shown, np.float32), _seen(name), n.each, np.float32)


def _write_settling(n: StageNodes, reading: Reading, host: AnomalyHost) -> str:
    """Write which channels are neither new nor back from a long gap: `Scorer`."""
    g, (_, there, gap), config = n.g, reading, host.config
    left = n.carry("settling", host.scorer.settling)
    is_back = g("And", there, g("Greater", gap, np.float64(config.max_gap)))
    left = g("Where", is_back, g("Max", left, np.float64(config.settle)), left)
    n.keep("settling", g("Max", g("Sub", left, n.marked(there)), ZERO))
    return g("Less", left, np.float64(0.5))


def _write_slow(
    n: StageNodes, reading: Reading, host: AnomalyHost, judged: str
) -> tuple[str, str, str]:
    """Write `SlowChannel.step`.

    Return how far a reading is off its level, where it has one, and how far the level is off.
    """
    g, stage, (known, there, _) = n.g, host.scorer.slow, reading
    clip = np.float64(slow.CLIP)
    reference = n.carry("slow_reference", stage.reference)
    n.keep("slow_reference", g("Identity", reference))
    mean, since, away = (
        n.carry(f"slow_{name}", getattr(stage, name)) for name in ("mean", "since", "away")
    )
    far = n.within(g("Sub", g("Where", there, known, mean), reference), clip)
    followed = n.moved(mean, g("Add", reference, far), np.float64(stage.share))
    n.keep("slow_mean", followed)
    off = g("Div", g("Abs", g("Sub", followed, reference)), stage.limit)
    told = g("Where", judged, off, ZERO)
    n.tell("slow", told)
    is_away = g("Greater", off, np.nextafter(slow.HALFWAY, 0))
    count = g("Where", is_away, g("Add", away, ONE), ZERO)
    n.keep("slow_away", count)
    share = g("Max", g("Div", ONE, g("Max", count, ONE)), np.float64(slow.SETTLED))
    change = g("Where", there, n.within(g("Sub", known, since), clip), ZERO)
    n.keep("slow_since", g("Where", is_away, g("Add", since, g("Mul", change, share)), followed))
    return g("Sub", known, reference), g("And", there, stage.is_held), told


def _write_stuck(n: StageNodes, reading: Reading, host: AnomalyHost, judged: str) -> None:
    """Write `StuckRule.step`."""
    g, stage, (known, there, _) = n.g, host.scorer.stuck, reading
    last, run, change = (
        n.carry(f"stuck_{name}", getattr(stage, name)) for name in ("last", "run", "change")
    )
    # NaN, which is neither equal nor greater, where one of the two is missing.
    size = g("Where", there, g("Abs", g("Sub", known, last)), MISSING)
    moved = n.moved(change, size, np.float64(stage.share))
    change = g("Where", g("Greater", size, ZERO), moved, change)
    n.keep("stuck_change", change)
    longer = g("Where", g("Equal", size, ZERO), g("Add", run, ONE), ONE)
    run = g("Where", there, longer, run)
    n.keep("stuck_run", run)
    n.keep("stuck_last", g("Where", there, known, last))
    still = g("Or", g("Greater", run, stage.longest - 0.5), g("Less", change, stage.least))
    n.tell("stuck", n.marked(g("And", judged, still)))


def _write_scores(n: StageNodes, views: _Views, off: str, host: AnomalyHost) -> None:
    """Write raw scores, what they say, and who is to blame: `decider.decide`."""
    g = n.g
    raw, heard = _write_raw(n, views, host)
    tails = g.input(TAILS, (BATCH, PARAMETERS, 1 + N_SCORES))
    of_each, of_largest = g.split(tails, [N_SCORES, 1], axis=2)
    surprises = g("Where", heard, write_surprise(n, raw, of_each), ZERO)
    n.tell("surprises", surprises, N_SCORES)
    largest = g("ReduceMax", surprises, axes=[1])
    is_heard = g.cut(heard, axis=1, start=0, stop=1)
    surprise = write_surprise(n, largest, of_largest)
    learns = g("And", is_heard, _write_learning(n, off, host.decider.learning))
    score = write_feedback(n, surprise, learns, host.decider.joint.feedback)
    n.tell("score", g("Where", is_heard, score, ZERO), 1)
    ranked = g("Sub", surprises, TIE * np.arange(N_SCORES))
    first = n.marked(g("Equal", ranked, g("ReduceMax", ranked, axes=[1])))
    view = g("MatMul", first, np.eye(N_VIEWS)[VIEW_OF])
    blamed = g("MatMul", n.rows(view), views.errors)
    square = g("Reshape", g("Mul", blamed, blamed), np.array([0, n.channels]))
    total = g("ReduceSum", square, MIDDLE)
    n.tell("contributions", g("Div", square, g("Where", g("Greater", total, ZERO), total, ONE)))


def _write_learning(n: StageNodes, off: str, stage: Learning) -> str:
    """Write `Learning.step`, `(B, 1)`."""
    g, longest, last = n.g, np.float64(stage.longest), np.float64(stage.n_rebase)
    held, calm = (
        n.carry(f"learning_{name}", np.array([float(getattr(stage, name))])) for name in stage.STATE
    )
    is_usual = g("Less", g("ReduceMax", off, axes=[1]), np.float64(slow.HALFWAY))
    calm = g("Where", is_usual, g("Min", g("Add", calm, ONE), last), ZERO)
    n.keep("learning_calm", calm)
    rested = g("Where", g("Less", calm, last - 0.5), held, ZERO)
    held = g("Where", is_usual, rested, g("Min", g("Add", held, ONE), longest))
    n.keep("learning_held", held)
    return g("Or", is_usual, g("Greater", held, longest - 0.5))


def _write_raw(n: StageNodes, views: _Views, host: AnomalyHost) -> tuple[str, str]:
    """Write `Aggregate.step`: raw scores `(B, S)`, and which there are."""
    g, stage, (errors, valid) = n.g, host.scorer.aggregate, views
    most = np.float64(aggregate.MOST)
    square = g("Min", g("Mul", errors, errors), most**2)
    square = g("Where", valid, square, stage.square)  # what is missing counts what it usually does
    error, there = (n.row(part, 0) for part in (errors, valid))
    lately = g("Log", g("Add", g("Min", g("Abs", error), most), ONE))
    lately = g("ReduceMean", g("Where", there, lately, stage.logarithm), axes=[1])
    speaks = g("Greater", g("ReduceMax", n.marked(valid), axes=[2], keepdims=0), ZERO)
    first, others = g.split(speaks, [1, N_VIEWS - 1], axis=1)
    running = n.carry("running", np.array([stage.running]))
    running = g("Where", first, n.moved(running, lately, np.float64(stage.share)), running)
    n.keep("running", running)
    mean = g("Max", g("ReduceMean", square, axes=[2], keepdims=0), np.float64(aggregate.LEAST))
    point, rest = g.split(mean, [1, N_VIEWS - 1], axis=1)
    heard = g("Concat", first, first, g("And", others, first), axis=1)
    return g("Concat", point, running, rest, axis=1), heard
