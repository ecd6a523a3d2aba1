"""A stream that was warmed up goes on as one that has stepped all of its history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import CONFIGS, build_model, make_columns, make_readings
from xlstm_ts import XLSTMForecaster
from xlstm_ts.columns import Column
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.chunk import build_chunk_graph
from xlstm_ts.export.graph import build_step_graph, read_contract
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel
from xlstm_ts.transforms import transformed

MODELS = {
    "plain": {},
    "patch": {"patch_length": 3},
    "day": {"patch_length": 24},
    "week": {"patch_length": 168},
    "mixed": {"patch_length": 24, "channels": "mixed", "linear_length": 30},
    "log": {"patch_length": 3, "target_transform": "log"},
    "long linear path": {"linear_length": 100},
    "columns": {"patch_length": 3, "n_past": 1, "n_known": 1, "n_static": 1, "periods": (24,)},
}
ROLES = [
    Column(name="load", role="past"),
    Column(name="price", role="known"),
    Column(name="site", role="static"),
    Column(name="hour", role="cyclic"),
]


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the two graphs of a model."""
    model = build_model(name)
    columns = tuple(ROLES) if model.config.n_columns else ()
    graph = build_step_graph(
        model,
        channels=("a", "b", "c"),
        step="h",
        library_version="0",
        columns=columns,
        seconds=3600,
    )
    paths = folder / "model.onnx", folder / "warmup.onnx"
    onnx.save(graph, paths[0])
    onnx.save(build_chunk_graph(model, read_contract(graph)), paths[1])
    return paths


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(CONFIGS, request.param, MODELS[request.param])
    return request.param


@pytest.fixture(scope="module")
def both(fitted: XLSTMForecaster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    export_onnx(fitted, folder / "model.onnx", warm_up=folder / "warmup.onnx")
    return folder / "model.onnx", folder / "warmup.onnx"


def error(got: np.ndarray, expected: np.ndarray, transform: str | None) -> float:
    """Return the largest difference in spreads of the channels of `build_model`."""
    pair = (transformed(part, transform) for part in (got, expected))
    return float((np.abs(np.subtract(*pair)) / [[3.0], [0.5], [1.0]]).max())


def test_warm_up_is_many_steps(name: str, tmp_path: Path) -> None:
    step_path, warm_up_path = write(name, tmp_path)
    model = StreamModel(step_path, warm_up=warm_up_path)
    chunk = model.warm_up_graph.chunk
    readings = make_readings(1, 3 * chunk + 21)[0].numpy()
    if model.contract.transform:
        readings = np.exp(readings / 40)
    told = [{} for _ in readings]
    static = {"site": 1.0} if model.contract.columns else {}
    history = {}
    if static:
        hours = np.datetime64("2024-01-01T05") + np.arange(len(readings))
        load, price, *_ = make_columns(build_model(name), 1, len(readings) + 5)[0].numpy().T
        told = [
            {
                "covariates": [load[t], price[t]],
                "future": price[t + 1 : t + 6],
                "time": hours[t],
            }
            for t in range(len(readings))
        ]
        history = {"load": load, "price": price}
    stepped, warmed = (model.create_stream(static=static) for _ in range(2))
    start = 0
    # Cold and warm, less than a chunk, whole chunks, and chunks with a rest.
    for stop in (5, 5 + chunk, 6 + chunk, 3 * chunk + 16):
        part = slice(start, stop)
        many = {}
        if static:
            many = {
                "covariates": {name: column[part] for name, column in history.items()},
                "future": told[stop - 1]["future"],
                "time": hours[part],
            }
        output = warmed.warm_up(readings[part], **many)
        for t in range(start, stop):
            expected = stepped.step(readings[t], **told[t])
        assert error(output.quantiles, expected.quantiles, model.contract.transform) < 1e-4
        np.testing.assert_array_equal(output.forecast, output.quantiles[..., 1])
        start = stop
    for t in range(start, start + 5):
        expected, output = (s.step(readings[t], **told[t]) for s in (stepped, warmed))
        assert error(output.quantiles, expected.quantiles, model.contract.transform) < 1e-4


def test_without_the_graph_all_are_stepped(both: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    readings = [50, 3] + rng.standard_normal((150, 2)) * [10, 1]
    model = StreamModel(both[0])
    stepped, warmed = model.create_stream(), model.create_stream()
    output = warmed.warm_up(readings)
    for reading in readings:
        expected = stepped.step(reading)
    np.testing.assert_array_equal(output.quantiles, expected.quantiles)
    for name, array in stepped.state.items():
        np.testing.assert_array_equal(warmed.state[name], array)


def test_chunks_go_through_the_graph(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamModel(both[0], warm_up=both[1])
    counts, run = [], model.warm_up_graph.run
    monkeypatch.setattr(
        model.warm_up_graph,
        "run",
        lambda rows, *rest, **state: counts.append(len(rows)) or run(rows, *rest, **state),
    )
    stream = model.create_stream()
    stream.warm_up(np.full((2 * model.warm_up_graph.chunk + 3, 2), 5.0))
    stream.warm_up(np.full((model.warm_up_graph.chunk - 1, 2), 5.0))
    assert counts == [model.warm_up_graph.chunk] * 2


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "at least one"),
        (np.empty((0, 2)), "at least one"),
        ([1.0, 2.0], "shape"),
        (np.zeros((5, 3)), r"got shape \(5, 3\)"),
        ([[1.0, "x"]], "numbers"),
        ([[1.0, 2.0], [np.inf, 2.0]], "of a in row 1"),
    ],
)
def test_wrong_history_changes_nothing(
    both: tuple[Path, Path], history: object, message: str
) -> None:
    stream = StreamModel(both[0], warm_up=both[1]).create_stream()
    stream.step([50.0, 3.0])
    before = stream.state
    with pytest.raises(StreamError, match=message):
        stream.warm_up(history)
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_covariates_nobody_asked_for(both: tuple[Path, Path]) -> None:
    with pytest.raises(StreamError, match="without such columns"):
        StreamModel(both[0]).create_stream().warm_up(np.zeros((3, 2)), covariates=np.zeros((3, 1)))


def test_graphs_of_the_other_kind_are_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="is a warm-up graph, not a step graph"):
        StreamModel(both[1])
    with pytest.raises(StreamError, match="is a step graph, not a warm-up graph"):
        StreamModel(both[0], warm_up=both[0])
    with pytest.raises(FileNotFoundError, match="no warm-up graph"):
        StreamModel(both[0], warm_up=tmp_path / "none.onnx")


def test_other_weights_are_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    other = onnx.load(both[1])
    contract = read_contract(other)
    text = contract.to_json().replace(contract.weights_hash, "0" * 64)
    onnx.helper.set_model_props(other, {"xlstm_ts": text})
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(StreamError, match="of other weights"):
        StreamModel(both[0], warm_up=tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": None}, "`time`"),
        ({"time": ["2024-01-01"] * 3}, "got 3"),
        ({"time": [f"2024-01-01T0{hour}" for hour in range(4)]}, "is not after 2024-01-01 03"),
        ({"time": [f"2024-01-02T0{hour}" for hour in (0, 2, 1, 3)]}, "01:00:00, which is not"),
        ({"covariates": {"load": np.zeros(4)}}, "lacks price"),
        ({"future": None}, "`future` is missing"),
    ],
)
def test_what_goes_with_a_history_is_asked_for(
    change: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CONFIGS, "columns", MODELS["columns"])
    stream = StreamModel(write("columns", tmp_path)[0]).create_stream(static={"site": 1})
    told = {
        "covariates": {"load": np.zeros(4), "price": np.zeros(4)},
        "future": np.zeros(5),
        "time": [f"2024-01-01T0{hour}" for hour in range(4)],
    }
    stream.warm_up(np.zeros((4, 3)), **told)
    told["time"] = [f"2024-01-02T0{hour}" for hour in range(4)]
    before = stream.state
    with pytest.raises(StreamError, match=message):
        stream.warm_up(np.zeros((4, 3)), **{**told, **change})
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])
    stream.warm_up(np.zeros((4, 3)), **told)


def test_steps_without_fixed_length_name_the_next_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "calendar", {"periods": (12,)})
    graph = build_step_graph(
        build_model("calendar"),
        channels=("a", "b", "c"),
        step="ME",
        library_version="0",
        columns=(Column(name="month", role="cyclic"),),
    )
    onnx.save(graph, tmp_path / "model.onnx")
    model = StreamModel(tmp_path / "model.onnx")
    months = np.datetime64("2024-01", "M") + np.arange(15)
    times = months.astype("M8[D]")
    readings = make_readings(1, 10)[0].numpy()
    warmed, stepped = model.create_stream(), model.create_stream()
    output = warmed.warm_up(readings, time=times)
    for t, reading in enumerate(readings):
        expected = stepped.step(reading, time=times[t : t + 6])
    np.testing.assert_array_equal(output.quantiles, expected.quantiles)
    warmed.reset()
    with pytest.raises(StreamError, match="no fixed length"):
        warmed.warm_up(readings, time=times[:10])
