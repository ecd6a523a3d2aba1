"""A pool of detectors says what single streams would, whoever comes and goes."""

from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.anomaly import Verdict
from xlstm_ts.anomaly.verdicts import NUMBERS
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import DetectorModel, open_model

KEYS = ["pump", 7, ("site", 2)]


@pytest.fixture(scope="module")
def model(detector_path: Path) -> DetectorModel:
    return DetectorModel(detector_path)


def assert_same(one: Verdict, other: Verdict) -> None:
    """Numbers differ by the rounding of the graph, in float32; what follows from them does not."""
    np.testing.assert_allclose(one[:NUMBERS], other[:NUMBERS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.contributions, other.contributions, rtol=1e-4, atol=1e-5)
    assert (one.status, one.alarm) == (other.status, other.alarm)
    assert _of_event(one) == _of_event(other)


def _of_event(verdict: Verdict) -> tuple[int, int, str, bool] | None:
    event = verdict.event
    return None if event is None else (event.number, event.start, event.kind, event.is_open)


def test_a_pool_says_what_single_streams_do(model: DetectorModel, sine: pd.DataFrame) -> None:
    """Keys come when they come, and leave, and come back as new ones."""
    rng, readings = np.random.default_rng(0), sine.to_numpy()
    pool, single = DetectorPool(model), {}
    for row in range(300):
        if row == 150:
            pool.drop(7)
            single.pop(7)
            assert 7 not in pool
        given = {key: readings[row] + place for place, key in enumerate(KEYS) if rng.random() < 0.8}
        for number in range(20):  # many for a moment: places grow, and are used again
            if row == 40:
                given[f"guest {number}"] = readings[row]
            elif row == 41:
                pool.drop(f"guest {number}")
        for key, verdict in pool.step(given).items():
            if key not in single:
                single[key] = model.create_stream()
            assert_same(verdict, single[key].step(given[key]))
    assert {*pool} == {*KEYS}


def test_left_out_stamps_and_times_by_key(model: DetectorModel, sine: pd.DataFrame) -> None:
    pool, stream = DetectorPool(model), model.create_stream()
    other = model.create_stream()  # of a key that leaves out nothing
    for row in range(140):
        given, time = sine.to_numpy()[row], sine.index[row].to_pydatetime()
        keys = ["c"] if 120 <= row < 125 else ["a", "b", "c"]
        verdicts = pool.step(dict.fromkeys(keys, given), time=dict.fromkeys(keys, time))
        assert_same(verdicts["c"], other.step(given, time=time))
        if "a" in keys:
            assert_same(verdicts["a"], stream.step(given, time=time))
        assert pool.filled == ({"a": 5, "b": 5} if row == 125 else {})
    with pytest.raises(StreamError, match=r"Key 'b': .*2024"):
        pool.step({"new": given, "b": given}, time=time)
    assert "new" not in pool


def test_silent_keys_are_forgotten(model: DetectorModel) -> None:
    pool = DetectorPool(model, expire_after=2)
    pool.step({"a": [50, 3], "b": [50, 3]})
    for _ in range(2):
        pool.step({"b": [50, 3]})
        assert [*pool] == ["a", "b"]
    pool.step({"b": [50, 3]})
    assert (pool.expired, [*pool]) == (["a"], ["b"])
    pool = DetectorPool(model, expire_after=timedelta(hours=2))
    with pytest.raises(StreamError, match="`time` is missing"):
        pool.step({"a": [50, 3]})
    for hour in range(3):
        pool.step({"b": [50, 3], "c": [50, 3]}, time=f"2024-03-01T0{hour}:00")
    pool.step({"a": [50, 3]}, time="2024-03-01T00:00")
    pool.step({"b": [50, 3], "c": [50, 3]}, time="2024-03-01T05:00")
    assert (pool.expired, [*pool]) == (["b", "c", "a"], ["b", "c"])  # b and c began anew


def test_a_pool_goes_on_from_a_snapshot(model: DetectorModel, sine: pd.DataFrame) -> None:
    readings, pool = sine.to_numpy(), DetectorPool(model)
    for row in range(130):
        pool.step({"a": readings[row], **({"b": readings[row] + 1} if row > 9 else {})})
    pool["b"].set_budget(alpha=0.02)
    file = BytesIO()
    pool.snapshot(file, offset={"row": 130})
    file.seek(0)
    again = DetectorPool(model)
    again.step({"other": readings[0]})
    assert again.restore(file) == {"row": 130}
    assert [*again] == ["a", "b"]
    assert again["b"].alpha == 0.02
    for row in range(130, 200):
        given = {"b": readings[row], "a": readings[row] + (row == 150) * 30, "c": readings[row]}
        verdicts, others = pool.step(given), again.step(given)
        for key in given:
            assert_same(verdicts[key], others[key])
    empty, file = DetectorPool(model), BytesIO()
    empty.snapshot(file)
    file.seek(0)
    again.restore(file)
    assert len(again) == 0


def test_what_cannot_be_used_changes_nothing(model: DetectorModel, tmp_path: Path) -> None:
    pool = DetectorPool(model)
    with pytest.raises(StreamError, match=r"Key 'b': .*got shape \(3,\)"):
        pool.step({"a": [50, 3], "b": [1, 2, 3]})
    with pytest.raises(StreamError, match=r"A key is a text, an integer or a tuple"):
        pool.step({"a": [50, 3], 1.5: [50, 3]})
    assert len(pool) == 0
    for act in (pool.drop, lambda key: pool[key]):
        with pytest.raises(StreamError, match="no key 'z'"):
            act("z")
    assert pool.step({}) == {}
    pool.step({"a": [50, 3]})
    gone = pool["a"]
    pool.drop("a")
    pool.step({"b": [50, 3]})  # takes the place
    for act in (gone.acknowledge, lambda: gone.set_budget(alpha=0.1), lambda: gone.alpha):
        with pytest.raises(StreamError, match="no key 'a'"):
            act()
    stream = model.create_stream()
    stream.snapshot(tmp_path / "stream")
    with pytest.raises(StreamError, match="holds a detector, not a pool of detectors"):
        pool.restore(tmp_path / "stream")


def test_a_file_is_loaded_as_what_it_is(detector_path: Path, graph_path: Path) -> None:
    assert isinstance(open_model(detector_path), DetectorModel)
    assert isinstance(open_model(graph_path), StreamModel)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> DetectorModel:
    """Return a detector that takes a new level for normal after 60 readings."""
    detector = XLSTMAnomalyDetector(
        alpha=0.005, warm_up=50, n_rebase=60, d_model=8, n_heads=2, context_length=32, max_steps=2,
        random_state=0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("quick") / "detector.onnx"
    index = pd.date_range("2026-03-02", periods=1500, freq="min")
    export_detector(detector.fit(pd.DataFrame(_machine(1500), index)), path)
    return DetectorModel(path)


def _machine(length: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((length, 1))
    return [5, -2, 100] + (common + 0.3 * rng.standard_normal((length, 3))) * [1, 2, 0.1]


def test_events_of_a_pool_are_those_of_single_streams(quick: DetectorModel) -> None:
    """Spikes, a level that becomes the new one, a sensor that stands still, channels that part."""
    readings = {key: _machine(600) for key in ("spike", "shift", "stuck", "parts", "gaps")}
    readings["spike"][200] += [30, 0, 0]
    readings["shift"][150:] += [0, 40, 0]
    readings["stuck"][250:, 2] = 100.0
    readings["parts"][300:330, 0] *= -1
    readings["gaps"][100:400:3, 1] = np.nan
    readings["gaps"][420:500] = np.nan
    readings["gaps"][510] += 20
    pool, single = DetectorPool(quick), {key: quick.create_stream() for key in readings}
    kinds, shifts = set(), {}
    for row in range(600):
        if row == 260:
            pool["stuck"].acknowledge()
            single["stuck"].acknowledge()
        verdicts = pool.step({key: values[row] for key, values in readings.items()})
        for key, verdict in verdicts.items():
            assert_same(verdict, single[key].step(readings[key][row]))
            kinds |= {verdict.event.kind} if verdict.event else set()
            if key == "shift" and verdict.event:
                shifts[verdict.event.number] = verdict.event
    assert kinds >= {"spike", "level_shift", "stuck", "deviation"}
    first = shifts[0]
    assert (first.start, first.kind, first.is_open) == (150, "level_shift", False)  # rebased
    assert verdicts["shift"].slow_score < 1


def test_a_long_pause_is_counted(quick: DetectorModel) -> None:
    """What comes after it stands where it would stand had each stamp been stepped."""
    pool, stream = DetectorPool(quick), quick.create_stream()
    time, readings = pd.Timestamp("2026-04-01"), _machine(300)
    readings[299] += 30
    for row, reading in enumerate(readings):
        time += pd.Timedelta(minutes=1 if row != 200 else quick.longest_memory + 500)
        verdict = pool.step({"a": reading}, time=time)["a"]
        assert_same(verdict, stream.step(reading, time=time))
    assert verdict.event is not None
    assert verdict.event.end == 299 + quick.longest_memory + 499
