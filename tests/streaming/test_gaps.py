"""Stamps that are left out are missing readings, to the byte, whoever is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from tests.conftest import CONFIGS, build_model
from xlstm_ts.columns import Column
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.chunk import build_chunk_graph
from xlstm_ts.export.graph import build_step_graph, read_contract
from xlstm_ts.streaming import Stream, StreamModel, StreamPool

ROME = "Europe/Rome"
HOURS = pd.date_range("2024-03-29", periods=2000, freq="h", tz=ROME)  # summer time begins
RNG = np.random.default_rng(0)
READINGS = [100.0, 0.0, -5.0] + RNG.standard_normal((len(HOURS), 3)) * [3.0, 0.5, 1.0]
PATCH = 3
COLUMNS = (
    Column(name="load", role="past"),
    Column(name="price", role="known"),
    Column(name="hour", role="cyclic"),
    Column(name="dayofweek", role="cyclic"),
)
KINDS = {
    "plain": {},
    "patch": {"patch_length": PATCH, "linear_length": 7},
    "mixed": {"patch_length": PATCH, "blocks": "ms", "channels": "mixed"},
    "columns": {"patch_length": PATCH, "n_past": 1, "n_known": 1, "periods": (24, 7)},
}


def load(kind: str, folder: Path, **facts: object) -> StreamModel:
    """Return a model of hourly readings with its warm-up graph, if that can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, kind, KINDS[kind])
        model = build_model(kind)
    facts = {"step": "h", "seconds": 3600.0, "zone": ROME, **facts}
    columns = COLUMNS if model.config.n_columns else ()
    graph = build_step_graph(
        model, channels=("a", "b", "c"), library_version="0", columns=columns, **facts
    )
    onnx.save(graph, folder / "model.onnx")
    if kind == "mixed":
        return StreamModel(folder / "model.onnx")
    onnx.save(build_chunk_graph(model, read_contract(graph)), folder / "warmup.onnx")
    return StreamModel(folder / "model.onnx", warm_up=folder / "warmup.onnx")


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StreamModel:
    return load(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> StreamModel:
    return load("plain", tmp_path_factory.mktemp("plain"))


def told(model: StreamModel, row: int, *, is_known: bool = True) -> dict[str, object]:
    """Return what goes with a reading of an hour; with one that is missing nothing is known."""
    beside = {"time": HOURS[row].to_pydatetime()}
    if model.contract.columns:
        value = float(row) if is_known else np.nan
        beside |= {"covariates": [value, value], "future": [value] * model.contract.horizon}
    return beside


def hour_by_hour(model: StreamModel, stream: Stream, rows: range, *, gap: range) -> Iterator:
    for row in rows:
        reading = np.full(3, np.nan) if row in gap else READINGS[row]
        yield stream.step(reading, **told(model, row, is_known=row not in gap))


def assert_same_state(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("gap", [1, 2, 50, 64, 700])
def test_a_gap_is_missing_readings(model: StreamModel, gap: int) -> None:
    """Hours are those of the clock, over the change of summer time; a long gap is not stepped."""
    away = range(20, 20 + gap)
    fed, left_out = model.create_stream(), model.create_stream()
    outputs = [*hour_by_hour(model, fed, range(20 + gap + 4), gap=away)]
    for row in [*range(20), *range(20 + gap, 20 + gap + 4)]:
        output = left_out.step(READINGS[row], **told(model, row))
        np.testing.assert_array_equal(output.quantiles, outputs[row].quantiles)
        if row == away.stop:
            assert left_out.filled.stamps == gap
            expected = outputs[away.stop - 1].quantiles
            np.testing.assert_array_equal(left_out.filled.output.quantiles, expected)
        else:
            assert left_out.filled == (0, None)
    assert_same_state(left_out.state, fed.state)


def test_a_gap_of_a_century_takes_no_time(model: StreamModel) -> None:
    """Its state is that of any gap as long after whole patches."""
    count = 1_000_000
    stream, other = model.create_stream(), model.create_stream()
    for row in range(20):
        for one in (stream, other):
            one.step(READINGS[row], **told(model, row))
    later = {**told(model, 20), "time": HOURS[19] + pd.Timedelta(hours=count + 1)}
    stream.step(READINGS[20], **later)
    assert stream.filled.stamps == count
    missing = range(20, 20 + 100 * PATCH + count % PATCH)
    for _ in hour_by_hour(model, other, missing, gap=missing):
        pass
    other.state = other.state  # it knows no time then
    other.step(READINGS[20], **later)
    assert_same_state(stream.state, other.state)


@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_keys_of_a_pool_have_gaps_of_their_own(model: StreamModel, batch_size) -> None:
    pool = StreamPool(model, batch_size=batch_size)
    streams = {key: model.create_stream() for key in "abcd"}
    away = {"a": range(0), "b": range(20, 21), "c": range(18, 110), "d": range(19, 110)}
    for row in range(112):
        keys = [key for key in streams if row not in away[key] and (key != "b" or row > 10)]
        beside = {key: told(model, row) for key in keys}
        outputs = pool.step(
            dict.fromkeys(keys, READINGS[row]),
            **{name: {key: beside[key][name] for key in keys} for name in beside["a"]},
        )
        for key in keys:
            output = streams[key].step(READINGS[row], **beside[key])
            scale = np.abs(output.quantiles).max()
            np.testing.assert_allclose(outputs[key].quantiles, output.quantiles, atol=2e-6 * scale)
        filled = {key: one.filled for key, one in streams.items() if key in keys}
        assert {key: one.stamps for key, one in pool.filled.items()} == {
            key: one.stamps for key, one in filled.items() if one.stamps
        }
        for key, one in pool.filled.items():
            np.testing.assert_allclose(
                one.output.quantiles, filled[key].output.quantiles, rtol=1e-4
            )
    if batch_size == 1:
        for key, stream in streams.items():
            assert_same_state(pool.state(key), stream.state)


def test_a_history_with_gaps_is_one_of_missing_readings(model: StreamModel) -> None:
    if model.warm_up_graph is None:
        pytest.skip("no warm-up graph of an sLSTM")
    rows = np.delete(np.arange(400), [*range(150, 190), 7, 300])
    readings, price = READINGS[:400].copy(), np.arange(400.0)
    gaps = np.setdiff1d(np.arange(400), rows)
    readings[gaps] = price[gaps] = np.nan
    fed, left_out = model.create_stream(), model.create_stream()
    for stream, part in ((fed, np.arange(400)), (left_out, rows)):
        beside = {}
        if model.contract.columns:
            beside = {"covariates": np.stack([price[part]] * 2, 1), "future": np.arange(5.0)}
        stream.warm_up(readings[part], time=HOURS[part], **beside)
    assert left_out.filled == (len(gaps), None)
    assert_same_state(left_out.state, fed.state)
    beside = told(model, 405)
    beside["time"] = [beside["time"]]
    if model.contract.columns:
        beside["covariates"] = [beside["covariates"]]
    left_out.warm_up(READINGS[405:406], **beside)  # a gap before it
    assert left_out.filled == (5, None)
    for _ in hour_by_hour(model, fed, range(400, 406), gap=range(400, 405)):
        pass
    assert_same_state(left_out.state, fed.state)


def test_a_history_far_from_itself_is_refused(plain: StreamModel) -> None:
    days = ["2024-01-01", "2024-01-02", "2094-01-03", "2094-01-04"]
    times = pd.Series(pd.to_datetime(days), index=[5, 6, 7, 8])
    with pytest.raises(StreamError, match=r"many times the length .* before 2094-01-03.* in row 2"):
        plain.create_stream().warm_up(np.zeros((4, 3)), time=times)


@pytest.mark.parametrize("is_pool", [False, True])
def test_a_snapshot_knows_how_long_ago_it_was(
    plain: StreamModel, tmp_path: Path, *, is_pool: bool
) -> None:
    """Also of readings that told no time."""
    one, other = ((StreamPool(plain) if is_pool else plain.create_stream()) for _ in range(2))
    for row in range(10):
        reading = {"x": READINGS[row]} if is_pool else READINGS[row]
        one.step(reading, time=HOURS[row] if row < 8 else None)
    one.snapshot(tmp_path / "state")
    other.restore(tmp_path / "state")
    for each in (one, other):
        each.step({"x": READINGS[15]} if is_pool else READINGS[15], time=HOURS[15])
        assert (each.filled["x"] if is_pool else each.filled).stamps == 5
    states = [each.state("x") if is_pool else each.state for each in (one, other)]
    assert_same_state(*states)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [([60, 120], [0, 0]), ([89, 91], [0, 0]), ([91, 150], [1, 0]), ([10, 20, 119], [0, 0, 1])],
)
def test_off_the_grid_the_nearest_step_counts(
    plain: StreamModel, minutes: list[int], expected: list[int]
) -> None:
    stream = plain.create_stream()
    stream.step(READINGS[0], time=HOURS[0])
    found = []
    for passed in minutes:
        stream.step(READINGS[0], time=HOURS[0] + pd.Timedelta(minutes=passed))
        found.append(stream.filled.stamps)
    assert found == expected


def test_days_are_those_of_the_clock(tmp_path: Path) -> None:
    """A day has 23 hours where summer time begins."""
    model = load("columns", tmp_path, step="D", seconds=86400.0)
    days = pd.date_range("2024-03-25", periods=12, tz=ROME)
    fed, left_out = model.create_stream(), model.create_stream()
    for row, day in enumerate(days):
        is_there = row not in (4, 5, 6, 7)
        value = float(row) if is_there else np.nan
        beside = {"covariates": [value] * 2, "future": [value] * 5, "time": day}
        fed.step(READINGS[row] if is_there else [np.nan] * 3, **beside)
        if is_there:
            left_out.step(READINGS[row], **beside)
    assert_same_state(left_out.state, fed.state)


def test_without_a_step_of_fixed_length_nothing_is_left_out(tmp_path: Path) -> None:
    stream = load("plain", tmp_path, step="ME", seconds=None).create_stream()
    for time in ("2024-01-31", "2024-09-30"):
        stream.step(READINGS[0], time=time)
        assert stream.filled == (0, None)


def test_what_is_refused_fills_nothing(model: StreamModel) -> None:
    stream = model.create_stream()
    stream.step(READINGS[0], **told(model, 0))
    before = stream.state
    with pytest.raises(StreamError):
        stream.step([1.0, 2.0, np.inf], **told(model, 9))
    with pytest.raises(StreamError):
        stream.step(READINGS[9], **{**told(model, 9), "covariates": ["warm"]})
    assert_same_state(stream.state, before)
    stream.reset()
    stream.step(READINGS[9], **told(model, 9))
    assert stream.filled == (0, None)
