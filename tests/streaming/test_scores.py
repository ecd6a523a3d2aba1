"""A batch of streams through the graph of scores, beside each of them alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.scores import ScoreModel, Scores

STREAMS, STEPS = 5, 260


@pytest.fixture(scope="module")
def paths(sine: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("scores")
    files = folder / "detector.onnx", folder / "scores.onnx"
    detector = XLSTMAnomalyDetector(
        alarms_per_day=0.1, d_model=8, n_heads=2, context_length=32, max_steps=3, random_state=0
    ).fit(sine.iloc[:400])
    export_detector(detector, files[0], scores=files[1])
    return files


@pytest.fixture
def model(paths: tuple[Path, Path]) -> ScoreModel:
    return ScoreModel(paths[1])


@pytest.fixture(scope="module")
def readings(sine: pd.DataFrame) -> np.ndarray:
    """Return `(STEPS, STREAMS, 2)`: other hours in each stream, and faults."""
    values = np.stack([sine.to_numpy()[7 * j : 7 * j + STEPS] for j in range(STREAMS)], 1)
    values[200, 1] += 60
    values[150:250, 2, 0] = values[150, 2, 0]
    values[120:, 3, 1] += 8
    return values


def run(batch, readings) -> Scores:
    return Scores(*map(np.array, zip(*(batch.step(one) for one in readings), strict=True)))


def test_a_batch_is_each_of_its_streams(model: ScoreModel, readings: np.ndarray) -> None:
    together = run(model.create_batch(STREAMS), readings)
    for j in range(STREAMS):
        alone = run(model.create_batch(1), readings[:, j : j + 1])
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(got[:, j], expected[:, 0], rtol=1e-4, atol=1e-4)
    assert together.alarm[200, 1]
    assert together.contributions[200, 1].sum() == pytest.approx(1)
    assert together.stuck[249, 2, 0] == 1
    assert together.alarm[249, 2]
    assert (together.slow[-1] >= 1).tolist() == [[False] * 2] * 3 + [[False, True], [False] * 2]
    assert not together.alarm[:100].any()  # they warm up
    assert together.judged[:100].sum() == 0


def test_what_is_expected_and_scored_is_that_of_a_detector(paths, readings: np.ndarray) -> None:
    batch, stream = ScoreModel(paths[1]).create_batch(1), DetectorModel(paths[0]).create_stream()
    for reading in readings[:200, 0]:
        got, verdict = batch.step(reading[None]), stream.step(reading)
        # The tails of its host go on learning, and there what channels tell of each other counts.
        assert got.surprises[0, :4].max() == pytest.approx(
            max(
                verdict.point_score, verdict.range_score, verdict.level_score, verdict.recent_score
            ),
            abs=0.3,
        )


def test_what_a_mask_hides_is_missing(model: ScoreModel, readings: np.ndarray) -> None:
    one, other = model.create_batch(2), model.create_batch(2)
    for batch in (one, other):
        run(batch, readings[:120, :2])
    hidden = np.ma.array([[9999.0, 3.0], [50.0, 3.0]], mask=[[True, False], [False, False]])
    state = other.state
    expected = other.step(hidden.filled(np.nan)).score
    np.testing.assert_array_equal(one.step(hidden).score, expected)
    other.state = state
    np.testing.assert_array_equal(other.step([*hidden]).score, expected)


def test_a_state_goes_on_and_streams_begin_anew(model: ScoreModel, readings: np.ndarray) -> None:
    whole = model.create_batch(STREAMS)
    run(whole, readings[:121])
    other = model.create_batch(STREAMS)
    other.state = whole.state
    rest = run(whole, readings[121:])
    for got, expected in zip(run(other, readings[121:]), rest, strict=True):
        np.testing.assert_array_equal(got, expected)
    other.reset([1, 3])
    fresh = run(model.create_batch(STREAMS), readings[:120])
    for got, expected in zip(run(other, readings[:120]), fresh, strict=True):
        np.testing.assert_allclose(got[:, [1, 3]], expected[:, [1, 3]], rtol=1e-4, atol=1e-4)
    assert other.step(readings[0]).judged[0].all()  # it goes on
    whole.reset()
    for name, value in model.create_batch(STREAMS).state.items():
        np.testing.assert_array_equal(whole.state[name], value)


def test_a_new_level_is_no_news(model: ScoreModel, readings: np.ndarray) -> None:
    batch = model.create_batch(STREAMS)
    assert run(batch, readings).slow[-1, 3, 1] > 1
    before = batch.state
    batch.rebase([3])
    rebased = batch.state
    assert before["slow_away"][3, 1] > 0
    assert not rebased["slow_away"][3].any()
    np.testing.assert_array_equal(rebased["slow_reference"][3, 1], before["slow_since"][3, 1])
    np.testing.assert_array_equal(rebased["slow_mean"][3], rebased["slow_reference"][3])
    assert batch.step(readings[-1]).slow[3, 1] < 1
    unchanged = np.delete(np.arange(STREAMS), 3)
    assert (before["slow_reference"][unchanged] == batch.state["slow_reference"][unchanged]).all()
    batch.state = before
    batch.rebase()
    assert batch.step(readings[-1]).slow.max() < 1


def test_a_threshold_and_tails_of_its_own(model: ScoreModel, readings: np.ndarray) -> None:
    batch = model.create_batch(STREAMS)
    run(batch, readings[:200])
    kept = batch.state
    score = batch.step(readings[200]).score
    batch.state, batch.threshold = kept, score[1] + 1
    assert not batch.step(readings[200]).alarm[1]
    batch.state = kept
    batch.beside["tails"][1, 6] *= 100  # the scale of what is usual far out
    assert batch.step(readings[200]).score[1] < score[1]


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        (np.zeros((4, 2)), r"must be \(5, 2\).*each of a, b; got \(4, 2\)"),
        (np.zeros(5), r"must be \(5, 2\)"),
        ([["a", "b"]] * 5, "must be numbers"),
    ],
)
def test_wrong_readings_change_nothing(model: ScoreModel, readings, message: str) -> None:
    batch = model.create_batch(STREAMS)
    with pytest.raises(StreamError, match=message):
        batch.step(readings)
    for name, value in model.create_batch(STREAMS).state.items():
        np.testing.assert_array_equal(batch.state[name], value)


def test_wrong_files_and_states_are_named(paths, model: ScoreModel, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"no graph of scores|not a graph of scores.*scores=path"):
        ScoreModel(paths[0])
    with pytest.raises(FileNotFoundError, match="no graph of scores"):
        ScoreModel(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(StreamError, match="is not a graph of scores of xlstm-ts"):
        ScoreModel(tmp_path / "text.onnx")
    assert ScoreModel(paths[1].read_bytes()).channels == ("a", "b")
    batch = model.create_batch(2)
    with pytest.raises(StreamError, match="another number of streams"):
        batch.state = model.create_batch(3).state
    with pytest.raises(ValueError, match="`size`"):
        model.create_batch(0)
