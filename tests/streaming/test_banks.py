"""Streams whose states stay on a device: on one that is played by the CPU, and on CUDA."""

import weakref
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.streaming.test_pool import INDEX, STATIC, assert_close, model, reading, rich
from xlstm_ts.exceptions import BackendWarning
from xlstm_ts.export.contract import COVARIATES, FUTURE, READING
from xlstm_ts.streaming import StreamModel, StreamPool, banks, sessions, slots, streams
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import DetectorModel

__all__ = ["model", "rich"]  # fixtures
CUDA = "CUDAExecutionProvider"
KEYS = [f"pump {number}" for number in range(11)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the CPU play a device: what is bound from outside is copied when it is bound."""
    alive = []

    def bind(session: Any, *, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        given = dict(inputs)
        for name in {READING, COVARIATES, FUTURE} & given.keys():
            array = np.array(given[name].numpy())
            alive.append(array)
            given[name] = sessions.tensor(array)
        return sessions.bind(session, inputs=given, outputs=outputs)

    for module in (banks, streams):
        monkeypatch.setattr(module, "bind", bind)
    for module in (slots, streams):
        monkeypatch.setattr(module, "is_away", lambda _: True)
    yield
    alive.clear()


def calls(seed: int, count: int) -> list[dict[str, list[float]]]:
    """Return readings of all keys, of some, and of new ones."""
    rng = np.random.default_rng(seed)
    chosen = []
    for number in range(count):
        known = KEYS[: 3 + number]
        keys = known if number % 3 else rng.permutation(known)[:2].tolist()
        chosen.append({key: reading(rng) for key in keys})
    return chosen


def test_a_stream_on_a_device_sees_each_reading(model: StreamModel, device: None) -> None:
    """A graph that is bound once would see the first reading for ever."""
    stream, rng = model.create_stream(), np.random.default_rng(0)
    readings = [reading(rng) for _ in range(20)]
    outputs = [stream.step(one) for one in readings]
    for output, expected in zip(outputs, plain_forecasts(model, readings), strict=True):
        np.testing.assert_array_equal(output.quantiles, expected)


def plain_forecasts(model: StreamModel, readings: list[list[float]]) -> list[Any]:
    """Return forecasts by plain calls of the runtime."""
    contract = model.contract
    state = {}
    for one in contract.state:
        state[one.name] = np.empty(one.shape, np.float32)
        state[one.name].flat[:] = one.initial
    forecasts = []
    for values in readings:
        fed = {READING: np.array([values], np.float32), **state}
        forecast, *new = model.session.run(None, fed)
        forecasts.append(forecast[0])
        state = dict(zip(state, new, strict=True))
    return forecasts


@pytest.mark.parametrize("batch_size", [2, 4, "auto"])
def test_a_pool_on_a_device_is_that_of_the_host(
    model: StreamModel, request: pytest.FixtureRequest, batch_size
) -> None:
    """Whole blocks, parts of blocks, keys that join, leave and begin anew."""
    state = model.create_stream().state | {"scaling_seen": np.full((1, 2, 1), 3, np.float32)}

    def run(each: StreamPool) -> list[dict[Any, Any]]:
        outputs = []
        for number, readings in enumerate(calls(1, 12)):
            outputs.append(each.step(readings))
            if number == 5:
                each.drop(KEYS[0])
                each.reset(KEYS[1])
                each.set_state(KEYS[2], state)
        return outputs

    host = StreamPool(model, expire_after=7)
    expected = run(host)
    request.getfixturevalue("device")
    away = StreamPool(model, expire_after=7, batch_size=batch_size)
    for outputs, others in zip(run(away), expected, strict=True):
        assert [*outputs] == [*others]
        for key, output in outputs.items():
            assert_close(output, others[key])
    for key in host:
        for name, array in host.state(key).items():
            np.testing.assert_allclose(away.state(key)[name], array, rtol=1e-4, atol=1e-4)


def test_streams_that_do_not_come_stay_to_the_bit(model: StreamModel, device: None) -> None:
    away, rng = StreamPool(model, batch_size=4), np.random.default_rng(2)
    away.step({key: reading(rng) for key in KEYS})
    before = away.state(KEYS[1])
    for _ in range(3):
        away.step({KEYS[0]: reading(rng), KEYS[5]: reading(rng)})
    for name, array in away.state(KEYS[1]).items():
        np.testing.assert_array_equal(array, before[name])


def test_snapshots_move_between_host_and_device(
    model: StreamModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    host, path, last = StreamPool(model), tmp_path / "pool", calls(4, 1)[0]
    for readings in calls(3, 6):
        host.step(readings)
    host.snapshot(path, offset=6)
    expected = host.step(last)
    host.restore(path)
    request.getfixturevalue("device")
    away = StreamPool(model, batch_size=4)
    assert away.restore(path) == 6
    for key in host:
        for name, array in host.state(key).items():
            np.testing.assert_array_equal(away.state(key)[name], array)
    for key, output in away.step(last).items():
        assert_close(output, expected[key])


def test_columns_and_left_out_stamps_go_with_their_streams(
    rich: StreamModel, request: pytest.FixtureRequest
) -> None:
    static = {number: STATIC["ab"[number % 2]] for number in range(5)}

    def run(each: StreamPool) -> list[tuple[Any, dict[Any, int]]]:
        time, rng, found = INDEX[0], np.random.default_rng(5), []
        for number in range(6):
            time += timedelta(hours=1 + 2 * (number == 3))
            keys = [*range(5)] if number % 2 else [4, 1]
            outputs = each.step(
                {key: 10 + rng.standard_normal() for key in keys},
                covariates={key: rng.standard_normal(2) for key in keys},
                future={key: rng.standard_normal((4, 1)) for key in keys},
                time=time,
            )
            found.append((outputs, {key: one[0] for key, one in each.filled.items()}))
        return found

    expected = run(StreamPool(rich, static=static))
    assert any(counts for _, counts in expected)
    request.getfixturevalue("device")
    found = run(StreamPool(rich, static=static, batch_size=2))
    for (outputs, counts), (others, expected_counts) in zip(found, expected, strict=True):
        assert counts == expected_counts
        for key, output in outputs.items():
            assert_close(output, others[key])


def test_states_on_a_device_leave_no_copy_on_the_host(
    model: StreamModel, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def tensor(array: Any, _: Any) -> Any:
        given.append(weakref.ref(array))
        return sessions.tensor(array.copy())

    monkeypatch.setattr(banks, "tensor", tensor)
    away = StreamPool(model, batch_size=4)
    assert len(given) >= 8 * len(model.contract.state)  # two of each in four blocks
    assert not any(one() is not None for one in given)
    assert len(away) == 0


@pytest.mark.gpu
def test_streams_on_cuda(graph_path: Path) -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has no CUDA: install xlstm-ts[onnx-gpu]")
    model, host = StreamModel(graph_path, providers=[CUDA]), StreamModel(graph_path)
    assert sessions.device_of(model.session) == ("cuda", 0), "CUDA or its libraries are missing"
    pools = StreamPool(model, batch_size=4), StreamPool(host)
    stream, own = model.create_stream(), host.create_stream()
    for readings in calls(6, 20):
        outputs, expected = (one.step(readings) for one in pools)
        for key, output in outputs.items():
            np.testing.assert_allclose(output.quantiles, expected[key].quantiles, rtol=1e-4)
        first = next(iter(readings.values()))
        np.testing.assert_allclose(
            stream.step(first).quantiles, own.step(first).quantiles, rtol=1e-4
        )


class Session:
    """What tells where a session runs."""

    def __init__(self, provider: str, device_id: str = "0") -> None:
        self.options = {provider: {"device_id": device_id}, sessions.CPU: {}}

    def get_providers(self) -> list[str]:
        return [*self.options]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self.options


def test_a_pool_of_detectors_on_a_device(detector_path: Path, device: None) -> None:
    rng, model = np.random.default_rng(0), DetectorModel(detector_path)
    pool, single = DetectorPool(model), {key: model.create_stream() for key in KEYS}
    largest = 0.0
    for _ in range(150):
        readings = {key: rng.normal([50, 3]) for key in rng.permutation(KEYS)[:9]}
        for key, verdict in pool.step(readings).items():
            expected = single[key].step(readings[key])
            assert verdict.score == pytest.approx(expected.score, abs=1e-4)
            largest = max(largest, verdict.score)
    assert largest > 1


@pytest.mark.parametrize(
    ("session", "device"),
    [
        (Session(CUDA, "1"), ("cuda", 1)),
        (Session("TensorrtExecutionProvider"), ("cuda", 0)),
        (Session("DmlExecutionProvider"), ("cpu", 0)),
    ],
)
def test_states_lie_on_the_device_of_the_session(session: Session, device: Any) -> None:
    """Whatever provider it is, what lies on the host is bound anew for each run."""
    assert sessions.is_away(session)
    assert sessions.device_of(session) == device


@pytest.mark.parametrize("option", ["enable_cuda_graph", "trt_cuda_graph_enable"])
def test_a_graph_that_repeats_its_first_memory_is_refused(graph_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}.*leave it out"):
        StreamModel(graph_path, providers=[(CUDA, {option: "1"}), sessions.CPU])


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (CUDA, {"use_tf32": "0"}),
        ((CUDA, {"device_id": "1"}), {"use_tf32": "0", "device_id": "1"}),
        ((CUDA, {"use_tf32": "1"}), {"use_tf32": "1"}),
    ],
)
def test_cuda_computes_in_float32_unless_told_otherwise(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, given: dict[str, str]
) -> None:
    sessions_of, opened = onnxruntime.InferenceSession, []

    def open_session(path: str, options: Any, providers: list[Any]) -> Any:
        opened.extend(providers)
        return sessions_of(path, options, providers=[sessions.CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, sessions.CPU])
    with pytest.warns(BackendWarning, match="run on CPU"):
        StreamModel(graph_path, providers=[asked, sessions.CPU])
    assert opened == [(CUDA, given), (sessions.CPU, {})]
