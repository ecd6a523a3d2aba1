"""The graph of scores gives the same numbers in C, Node, WebAssembly and onnx.reference."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tests.portability.test_elsewhere import NODE, build, need_package, run
from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.export.contract import SCORES_KEY
from xlstm_ts.export.detectors import export_detector

TRAINING, STEPS = 700, 1000
SCRIPT = Path(__file__).parent / "scores.mjs"
DECADES = 1e-4


class Scored(NamedTuple):
    """A graph, what it says of itself, raw readings, and by each score, contributions and alarm."""

    path: Path
    record: dict[str, Any]
    readings: NDArray[np.float64]
    expected: NDArray[np.float64]
    alarms: NDArray[np.bool_]

    def check(self, rows: NDArray[np.float64]) -> None:
        """Hold the first scores and contributions against those of onnxruntime in Python."""
        expected = self.expected[: len(rows)]
        assert np.abs(rows[:, 0] - expected[:, 0]).max() <= DECADES
        # Where nothing is off, as good as all of it is what a model rounds.
        loud = expected[:, 0] > 1
        assert np.abs(rows - expected)[loud].max() <= 1e-2


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    rng, hours = np.random.default_rng(0), np.arange(TRAINING + STEPS)
    values = np.stack([np.sin(hours * np.pi / 12), np.cos(hours * np.pi / 12)], 1)
    values = [5000, 3] + [10, 1] * (values + 0.2 * rng.standard_normal(values.shape))
    values[rng.random(values.shape) < 0.02] = np.nan
    values[TRAINING + 300, 0] += 200
    values[TRAINING + 500 : TRAINING + 540, 1] = 3.5
    values[TRAINING + 700 :] += [30, 0]
    index = pd.date_range("2024-01-01", periods=len(values), freq="h")
    detector = XLSTMAnomalyDetector(
        alarms_per_day=0.5, d_model=8, n_heads=2, context_length=32, max_steps=5, random_state=0
    ).fit(pd.DataFrame(values[:TRAINING], index[:TRAINING], columns=["state", 'T_{in}: "x"']))
    folder = tmp_path_factory.mktemp("scored")
    export_detector(detector, folder / "detector.onnx", scores=folder / "scores.onnx")
    graph = onnx.load(folder / "scores.onnx")
    record = json.loads({one.key: one.value for one in graph.metadata_props}[SCORES_KEY])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [one.name for one in session.get_outputs()]
    readings = values[TRAINING:].round(6)
    rows, alarms = replay(
        readings, record, lambda fed: dict(zip(names, session.run(None, fed), strict=True))
    )
    assert 20 < alarms.sum() < STEPS / 2
    return Scored(folder / "scores.onnx", record, readings, rows, alarms)


def replay(
    readings: NDArray[np.float64], record: dict[str, Any], step: Any
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores with contributions, and alarms, as nothing but the record tells to run it."""

    def tensors(described: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
        return {
            one["name"]: np.array(one["initial"], float).astype(one["dtype"]).reshape(one["shape"])
            for one in described
        }

    given, state, rows, alarms = tensors(record["inputs"]), tensors(record["state"]), [], []
    for reading in readings:
        got = step({"reading": reading[None], **given, **state})
        state = {one["name"]: got[one["next"]] for one in record["state"]}
        score = got["score"].item()
        rows.append([score, *got["contributions"][0]])
        alarms.append(
            score >= record["threshold"] or got["slow"].max() >= 1 or got["stuck"].max() > 0
        )
    return np.array(rows), np.array(alarms)


def text(readings: NDArray[np.float64]) -> str:
    rows = (",".join("" if np.isnan(x) else repr(float(x)) for x in row) for row in readings)
    return "\n".join(("state,flow", *rows, ""))


def test_c(scored: Scored, tmp_path: Path) -> None:
    done = run(build("detect", tmp_path), scored.path, stdin=text(scored.readings))
    assert done.returncode == 0, done.stderr
    rows = np.array([[float(x) for x in row] for row in csv.reader(done.stdout.splitlines())])
    assert len(rows) == STEPS
    np.testing.assert_array_equal(rows[:, 1] > 0, scored.alarms)
    scored.check(np.delete(rows, 1, axis=1))


def test_c_names_what_is_wrong(scored: Scored, tmp_path: Path) -> None:
    program = build("detect", tmp_path)
    other, damaged = scored.path.with_name("detector.onnx"), tmp_path / "damaged.onnx"
    graph = onnx.load(scored.path)
    told = graph.metadata_props[0].value
    graph.metadata_props[0].value = told[:-3]  # of }]}
    onnx.save(graph, damaged)
    graph.metadata_props[0].value = told.replace('"version": 2', '"version": 3')
    onnx.save(graph, later := tmp_path / "later.onnx")
    for path, stdin, message in (
        (damaged, "state,flow\n1,2\n", "incomplete"),
        (later, "state,flow\n1,2\n", "another version"),
        (scored.path, "state,flow\n1\n", "fewer fields"),
        (scored.path, "state,flow\n1,2,3\n", "more fields"),
        (scored.path, "state,flow\n1,two\n", "not a number"),
        (scored.path, "state,flow\n1,2" + " " * 70_000 + "\n", "too long"),
        (scored.path, "", "no header"),
        (other, "state,flow\n1,2\n", "no graph of scores"),
    ):
        done = run(program, path, stdin=stdin)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_javascript(package: str, scored: Scored, tmp_path: Path) -> None:
    need_package(package)
    record, readings = tmp_path / "record.json", tmp_path / "readings.json"
    record.write_text(json.dumps(scored.record))
    readings.write_text(json.dumps(scored.readings.tolist()).replace("NaN", "null"))
    # A package is looked for beside the script that asks for it.
    entry = SCRIPT.parents[2] / "examples" / "node_modules" / package / "dist"
    module = next(entry.glob("ort.node.min.mjs"), entry / "index.js")
    done = run(NODE, SCRIPT, scored.path, record, readings, module.as_uri())
    assert done.returncode == 0, done.stderr
    rows = np.array([[float(x) for x in row] for row in csv.reader(done.stdout.splitlines())])
    assert len(rows) == STEPS
    scored.check(rows)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value", "ignore:divide")
def test_onnx_reference(scored: Scored) -> None:
    evaluator = ReferenceEvaluator(str(scored.path))
    names = evaluator.output_names
    rows, _ = replay(
        scored.readings[:350],
        scored.record,
        lambda fed: dict(zip(names, evaluator.run(None, fed), strict=True)),
    )
    scored.check(rows)
