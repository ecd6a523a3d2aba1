"""Streams: one reading in, one forecast out, the state in the caller's hands, nothing heavy."""

import datetime
import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from xlstm_ts.exceptions import BackendWarning, StreamError
from xlstm_ts.export.contract import METADATA_KEY
from xlstm_ts.streaming import StreamModel

# An odd number: the two copies of the state take turns.
READINGS = [50.0, 3.0] + np.random.default_rng(0).standard_normal((21, 2)) * [10, 1]


@pytest.fixture(scope="module")
def model(graph_path: Path) -> StreamModel:
    return StreamModel(graph_path)


def run(stream, readings=READINGS):
    return np.stack([stream.step(reading).quantiles for reading in readings])


def test_step_gives_forecast_and_quantiles(model: StreamModel) -> None:
    output = model.create_stream().step(READINGS[0])
    assert output.forecast.shape == (12, 2)
    assert output.quantiles.shape == (12, 2, 3)
    np.testing.assert_array_equal(output.forecast, output.quantiles[..., 1])
    assert (np.diff(output.quantiles, axis=-1) >= 0).all()


def test_a_graph_may_come_as_bytes(model: StreamModel, graph_path: Path) -> None:
    given = StreamModel(graph_path.read_bytes())
    np.testing.assert_array_equal(run(given.create_stream()), run(model.create_stream()))
    with pytest.raises(StreamError, match="What was given is not a step graph"):
        StreamModel(b"nothing")


def test_reset_forgets_everything(model: StreamModel) -> None:
    stream = model.create_stream()
    first = run(stream)
    assert not np.array_equal(first, run(stream))
    stream.reset()
    np.testing.assert_array_equal(first, run(stream))


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_state_goes_on_bit_for_bit(cut: int, model: StreamModel) -> None:
    stream, other = model.create_stream(), model.create_stream()
    whole = run(stream)
    stream.reset()
    run(stream, READINGS[:cut])
    saved = stream.state
    run(stream)  # what comes later leaves the copy alone
    other.state = saved
    np.testing.assert_array_equal(run(other, READINGS[cut:]), whole[cut:])


def test_streams_are_apart_and_outputs_stay(model: StreamModel) -> None:
    alone = run(model.create_stream())
    streams = [model.create_stream() for _ in range(3)]
    outputs = [[stream.step(reading) for stream in streams] for reading in READINGS]
    del streams
    gc.collect()
    for row, expected in zip(outputs, alone, strict=True):
        for output in row:
            np.testing.assert_array_equal(output.quantiles, expected)


def test_missing_reading_gives_a_forecast(model: StreamModel) -> None:
    stream = model.create_stream()
    for reading in ([np.nan, np.nan], [np.nan, 3.0], [50.0, np.nan]):
        assert np.isfinite(stream.step(reading).quantiles).all()


@pytest.mark.parametrize("code", [9.96921e36, -1e20, 3e38])
def test_code_of_a_missing_reading_is_one(code: float, model: StreamModel) -> None:
    coded, gap = model.create_stream(), model.create_stream()
    for stream in (coded, gap):
        run(stream)
    run(coded, [[code, 3.0]])
    run(gap, [[np.nan, 3.0]])
    np.testing.assert_array_equal(run(coded), run(gap))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (["x", 1.0], "a, b"),
        ([10**400, 1.0], "a, b"),
        ({}, "a, b"),
        ([1.0], "a, b"),
        ([[1.0, 2.0]], "shape"),
        ([1.0, np.inf], "of b"),
        ([-1e39, 0.0], "of a"),
    ],
)
def test_wrong_reading_changes_nothing(model: StreamModel, reading, message: str) -> None:
    stream = model.create_stream()
    run(stream)
    before = stream.state
    with pytest.raises(StreamError, match=message):
        stream.step(reading)
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_kinds_of_readings_are_alike(graph_path: Path, model: StreamModel) -> None:
    kinds = (list, tuple, np.array, lambda row: np.array(row, np.float32).astype(object))
    first, *others = (
        run(model.create_stream(), [kind([50.0, 3.0]), kind([51.5, 2.5])]) for kind in kinds
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("zone", [None, datetime.timezone.utc])
def test_a_time_is_after_the_one_before(model: StreamModel, zone) -> None:
    """Also where no calendar asks for it: a reading that comes twice is refused."""
    stream, noon = model.create_stream(), datetime.datetime(2024, 3, 1, 12, tzinfo=zone)
    stream.step(READINGS[0], time=noon)
    before = stream.state
    for earlier in (noon, noon - datetime.timedelta(microseconds=1)):
        with pytest.raises(StreamError, match=r"2024-03-01 1.* is not after 2024-03-01 12:00:00"):
            stream.step(READINGS[1], time=earlier)
    np.testing.assert_array_equal(stream.state["scaling_last"], before["scaling_last"])
    stream.step(READINGS[1])  # nothing is told, nothing is refused
    with pytest.raises(StreamError, match="not after"):
        stream.step(READINGS[2], time=noon)
    stream.step(READINGS[2], time=noon + datetime.timedelta(microseconds=1))
    stream.reset()
    stream.step(READINGS[0], time=noon)
    stream.state = before
    stream.step(READINGS[1], time=noon)


def test_masked_reading_is_missing(model: StreamModel) -> None:
    masked, gap = model.create_stream(), model.create_stream()
    run(masked, [np.ma.masked_array([-999, 3], [True, False])])
    run(gap, [[np.nan, 3.0]])
    np.testing.assert_array_equal(run(masked), run(gap))


def test_broken_state_is_refused(model: StreamModel) -> None:
    stream = model.create_stream()
    state = stream.state
    with pytest.raises(StreamError, match="scaling_last"):
        stream.state = {**state, "scaling_last": np.full_like(state["scaling_last"], np.nan)}
    np.testing.assert_array_equal(stream.state["scaling_last"], state["scaling_last"])


def test_state_of_another_model_is_refused(model: StreamModel) -> None:
    stream = model.create_stream()
    run(stream)
    before = stream.state
    name = next(iter(before))
    for wrong in ({**before, "other": np.zeros(1)}, {**before, name: np.zeros(7)}, {}):
        with pytest.raises(StreamError, match="another model"):
            stream.state = wrong
    np.testing.assert_array_equal(stream.state[name], before[name])


def test_files_that_are_no_step_graph(graph_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        StreamModel(tmp_path / "nowhere.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(StreamError, match=r"text\.onnx is not a step graph"):
        StreamModel(text)
    graph = onnx.load(graph_path)
    for key, value in ((METADATA_KEY, '{"version": 99}'), ("foreign", "{}")):
        onnx.helper.set_model_props(graph, {key: value})
        onnx.save(graph, tmp_path / "foreign.onnx")
        with pytest.raises(StreamError, match="is not a step graph"):
            StreamModel(tmp_path / "foreign.onnx")


def test_contract_of_another_graph(graph_path: Path, tmp_path: Path) -> None:
    graph = onnx.load(graph_path)
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "other"
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(StreamError, match="not those of its contract"):
        StreamModel(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "`threads` must be at least 1, got 0"),
        ({"providers": []}, "`providers` must be a list"),
        ({"providers": "CPUExecutionProvider"}, "`providers` must be a list"),
    ],
)
def test_wrong_options_are_named(graph_path: Path, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamModel(graph_path, **options)


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", ("CUDAExecutionProvider", {})])
def test_a_provider_that_is_not_there_is_told(graph_path: Path, model, provider) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.warns(
        BackendWarning, match="CUDAExecutionProvider was asked for, but .* run on CPU"
    ):
        fallen = StreamModel(graph_path, providers=[provider, "CPUExecutionProvider"])
    np.testing.assert_array_equal(run(fallen.create_stream()), run(model.create_stream()))


def test_streaming_imports_nothing_heavy(graph_path: Path) -> None:
    code = f"""
import sys
from xlstm_ts.streaming import StreamPool
from xlstm_ts.streaming import StreamModel
model = StreamModel({str(graph_path)!r})
model.create_stream().step([50.0, 3.0])
StreamPool(model).step({{"a": [50.0, 3.0]}})
heavy = {{"torch", "pandas", "sklearn", "scipy", "onnx", "triton"}} & sys.modules.keys()
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_onnxruntime_the_extras_are_named() -> None:
    code = "import sys; sys.modules['onnxruntime'] = None; import xlstm_ts.streaming"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "BackendError" in done.stderr
    assert "xlstm-ts[onnx]" in done.stderr
    assert "xlstm-ts[onnx-gpu]" in done.stderr
