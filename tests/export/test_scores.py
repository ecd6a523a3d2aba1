"""The graph that scores by itself, beside the stages of the host."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.anomaly import AnomalyHost
from xlstm_ts.exceptions import ExportError, StreamError
from xlstm_ts.export import detectors
from xlstm_ts.export.contract import SCORES_KEY
from xlstm_ts.export.detectors import export_detector, score_beside
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.export.scores import build_score_graph
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.scores import ScoreModel

TRAINING, STREAMED = 700, 1300
OPTIONS = {"alarms_per_day": 0.5, "d_model": 8, "n_heads": 2, "context_length": 32, "max_steps": 5}
# What the issue of portability allows; NaN, If, Loop and what a runtime may lack are not among it.
PLAIN = {
    "Abs", "Add", "And", "Cast", "Clip", "Concat", "Div", "Equal", "Exp", "Gather", "Gemm",
    "Greater", "Identity", "IsNaN", "LayerNormalization", "Less", "Log", "MatMul", "Max", "Min",
    "Mul", "Neg", "Not", "Or", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape",
    "Sigmoid", "Slice", "Softplus", "Split", "Sqrt", "Sub", "Unsqueeze", "Where",
}  # fmt: skip


def make_readings(channels: int) -> pd.DataFrame:
    """Return waves on a high level with all that happens: gaps, spikes, stops, steps, a drift."""
    rng = np.random.default_rng(channels)
    hours = np.arange(TRAINING + STREAMED)[:, None]
    values = np.sin(hours * np.pi / 12 + np.arange(channels)) + 0.2 * rng.standard_normal(
        (len(hours), channels)
    )
    values[rng.random(values.shape) < 0.01] = np.nan
    stream = values[TRAINING:]
    stream[200, 0] += 20
    stream[300:303, -1] = 1e6
    stream[400:460] = np.nan
    stream[500:560, 0] = stream[500, 0]
    stream[600:670, -1] = np.nan
    stream[700:720, 0] += 3
    stream[800:, -1] += np.minimum(np.arange(STREAMED - 800) / 20, 6)
    stream[1100, 0] = np.inf
    index = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return pd.DataFrame(
        1e5 + 3 * values, index, columns=[f"sensor {one}" for one in range(channels)]
    )


def record_of(graph: onnx.ModelProto) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(
        {one.key: one.value for one in graph.metadata_props}[SCORES_KEY]
    )
    return record


@pytest.fixture(scope="module", params=[1, 3])
def written(request, tmp_path_factory) -> tuple[Path, Path, pd.DataFrame]:
    """Return both files of a detector, and readings after its training."""
    readings = make_readings(request.param)
    folder = tmp_path_factory.mktemp("scores")
    detector = XLSTMAnomalyDetector(random_state=0, **OPTIONS).fit(readings.iloc[:TRAINING])
    files = folder / "detector.onnx", folder / "scores.onnx"
    export_detector(detector, files[0], scores=files[1])
    return *files, readings.iloc[TRAINING:]


def states_of(host: AnomalyHost) -> dict[str, Any]:
    """Return what the graph has to remember by the names that it has there."""
    front, feedback = host.whitening, host.decider.joint.feedback
    slow = {
        name: getattr(host.scorer.slow, name) for name in ("mean", "reference", "away", "since")
    }
    stuck = {name: getattr(host.scorer.stuck, name) for name in ("last", "run", "change")}
    return {
        **{f"slow_{name}": value for name, value in slow.items()},
        **{f"stuck_{name}": value for name, value in stuck.items()},
        "gap": front.gap, "settling": host.scorer.settling, "beyond": front.guard.beyond,
        "weights": front.head.weights, "doubt": front.head.doubt,
        "own_location": host.scorer.errors.correction.location,
        "own_variance": host.scorer.errors.correction.variance,
        "running": [host.scorer.aggregate.running], "shifts": feedback.shifts,
        "shift_starts": feedback.starts, "quiet": feedback.quiet,
        "learning_held": [host.decider.learning.held],
        "learning_calm": [host.decider.learning.calm],
    }  # fmt: skip


def test_what_lasts_is_learnt_again(tmp_path: Path) -> None:
    """A level that is held open is learnt once it has lasted, in the graph as on the host."""
    readings = make_readings(1)
    options = {**OPTIONS, "n_rebase": 40, "policy": "hold"}
    detector = XLSTMAnomalyDetector(random_state=0, **options).fit(readings.iloc[:TRAINING])
    files = tmp_path / "detector.onnx", tmp_path / "scores.onnx"
    export_detector(detector, files[0], scores=files[1])
    stream, batch = DetectorModel(files[0]).create_stream(), ScoreModel(files[1]).create_batch(1)
    later = readings.iloc[TRAINING : TRAINING + 400].to_numpy().copy()
    later[200:] += 60
    shifts = []
    for reading in later:
        score_beside(batch, reading, stream.host)
        stream.step(reading)
        shifts.append(stream.host.decider.joint.feedback.shifts)
        for name in ("learning_held", "learning_calm", "shifts"):
            expected = states_of(stream.host)[name]
            np.testing.assert_allclose(batch.state[name][0], expected, rtol=1e-6, atol=1e-9)
    learning = stream.host.decider.learning
    assert learning.held == learning.longest == 48
    assert shifts[215] == shifts[240]
    assert shifts[-1] != shifts[240]


def test_scores_are_those_of_the_host(written) -> None:
    path, scores, readings = written
    stream, batch = DetectorModel(path).create_stream(), ScoreModel(scores).create_batch(1)
    statuses, alarms, rebased = set(), 0, 0
    rebase = stream.host.scorer.slow.rebase

    def counted() -> None:
        nonlocal rebased
        rebased += 1
        rebase()

    stream.host.scorer.slow.rebase = counted
    for reading in np.where(np.isinf(readings), np.nan, readings):
        got = score_beside(batch, reading, stream.host)
        before = rebased
        verdict = stream.step(reading)
        last = stream.host.last
        after = batch.state
        for name, expected in states_of(stream.host).items():
            if before == rebased or not name.startswith("slow"):  # an event is the host's alone
                np.testing.assert_allclose(after[name][0], expected, rtol=1e-6, atol=1e-9)
        parts = {
            "score": verdict.score,
            "surprises": [
                verdict.point_score, verdict.range_score, verdict.level_score,
                verdict.recent_score, verdict.relation_score,
            ],
            "contributions": verdict.contributions,
        }  # fmt: skip
        for name, expected in parts.items():
            np.testing.assert_allclose(getattr(got, name)[0], expected, rtol=1e-9, atol=1e-9)
        assert got.slow.max() == pytest.approx(verdict.slow_score, abs=1e-9)
        np.testing.assert_array_equal(got.judged[0] > 0, ~np.isnan(last.recent))
        if verdict.status in ("ok", "alarm", "stuck"):
            assert (got.stuck.max() > 0) == (verdict.status == "stuck")
        statuses.add(verdict.status)
        alarms += verdict.alarm
    assert statuses == {"warm-up", "ok", "alarm", "stuck", "missing"}
    assert 10 < alarms < STREAMED / 2


def test_expected_band_is_that_of_the_host(written) -> None:
    path, scores, readings = written
    host, batch = DetectorModel(path).create_stream().host, ScoreModel(scores).create_batch(1)
    for reading in readings.to_numpy()[:100]:
        got = score_beside(batch, reading, host)
        innovation = host.whitening.step(reading)
        np.testing.assert_allclose(got.expected[0], innovation.expected, rtol=1e-12)
        np.testing.assert_allclose(got.width[0], innovation.scale, rtol=1e-9)


def test_a_reading_beyond_float32_is_missing(written) -> None:
    _, scores, readings = written
    for special in (np.inf, -1e39, 1e200):
        ones = [ScoreModel(scores).create_batch(1) for _ in range(2)]
        for reading in readings.to_numpy()[:110]:
            for batch in ones:
                batch.step(reading[None])
        last = readings.to_numpy()[110]
        for batch, value in zip(ones, (special, np.nan), strict=True):
            batch.step(np.where(np.arange(len(last)) == 0, value, last)[None])
        for name, expected in ones[1].state.items():
            np.testing.assert_array_equal(ones[0].state[name], expected)


def test_alone_it_keeps_the_rate() -> None:
    noise = np.random.default_rng(0).standard_normal(7000)
    values = np.convolve(noise, 0.8 ** np.arange(30))[:7000]
    options = OPTIONS | {"alarms_per_day": None, "alpha": 1e-2}
    detector = XLSTMAnomalyDetector(random_state=0, **options).fit(values[:1500, None])
    step = build_step_graph(
        detector.forecaster_.model_, channels=("y",), step=None, library_version="",
        columns=detector.forecaster_.covariates_.columns,
    )  # fmt: skip
    graph = build_score_graph(detector.host_, step).SerializeToString()
    batch = ScoreModel(graph).create_batch(1)
    scores = [batch.step([value]).score[0] for value in values[1500:]]
    assert 0.5 < np.mean(np.array(scores) >= 2) / 1e-2 < 1.5


def test_plain_operators_and_all_that_a_port_needs(written) -> None:
    path, scores, readings = written
    host, graph = DetectorModel(path).create_stream().host, onnx.load(scores)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.op_type for node in graph.graph.node} <= PLAIN
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert (graph.opset_import[0].version, graph.ir_version) == (17, 8)
    record = record_of(graph)
    for one, value in zip(record["inputs"], detectors.beside(host).values(), strict=True):
        assert (one["shape"], one["dtype"]) == ([*value.shape], "float64")
        np.testing.assert_array_equal(np.array(one["initial"], float), value.ravel())
    assert record["channels"] == [*readings.columns]
    inputs = [one.name for one in graph.graph.input]
    assert {*inputs} == {"reading"} | {one["name"] for one in record["inputs"] + record["state"]}
    outputs = {one.name for one in graph.graph.output}
    assert outputs - {one["next"] for one in record["state"]} == {
        "score", "surprises", "contributions", "slow", "stuck", "judged", "expected", "width",
    }  # fmt: skip


def test_it_is_told_apart_and_no_half_is_written(written, tmp_path: Path, monkeypatch) -> None:
    _, scores, readings = written
    for kind in (StreamModel, DetectorModel):
        with pytest.raises(StreamError, match=r"scores readings by itself.*beside it"):
            kind(scores)
    detector = XLSTMAnomalyDetector(random_state=0, **OPTIONS).fit(readings.iloc[:TRAINING])
    with pytest.raises(ValueError, match="`scores` is a second file"):
        export_detector(detector, tmp_path / "one.onnx", scores=tmp_path / "one.onnx")
    monkeypatch.setattr(detectors, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="No file was written"):
        export_detector(detector, tmp_path / "one.onnx", scores=tmp_path / "two.onnx")
    assert not [*tmp_path.iterdir()]
