"""Files from elsewhere: whatever is in them, a loader gives the library's own error or a result."""

import hashlib
import io
import json
import random
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector, XLSTMForecaster
from xlstm_ts.exceptions import XLSTMError
from xlstm_ts.export.contract import DETECTOR_KEY
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel, StreamPool
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.scores import ScoreModel

ROUNDS = 120
MOST_TAKEN = 5_000_000  # bytes, for a file of some 50,000
ODD: tuple[Any, ...] = (None, -1, 0, 10**12, 1.5, "", "x", [], {}, [None], True, float("nan"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrusted")
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-01-01", periods=400, freq="h", tz="Europe/Vienna")
    y = pd.DataFrame(rng.standard_normal((400, 2)), times, ["a", "b"])
    small: dict[str, Any] = {"d_model": 8, "n_heads": 2, "max_steps": 2, "random_state": 0}
    forecaster = XLSTMForecaster(4, patch_length=1, context_length=32, **small).fit(y)
    forecaster.save(folder / "forecaster")
    export_onnx(forecaster, folder / "model.onnx")
    stream = StreamModel(folder / "model.onnx").create_stream()
    stream.step([1.0, 2.0])
    stream.snapshot(folder / "snapshot")
    detector = XLSTMAnomalyDetector(context_length=32, **small).fit(y)
    detector.save(folder / "detector")
    export_detector(detector, folder / "detector.onnx", scores=folder / "scores.onnx")
    return folder


LOADERS: dict[str, Callable[[Path], Any]] = {
    "forecaster": XLSTMForecaster.load,
    "detector": XLSTMAnomalyDetector.load,
    "model.onnx": lambda path: StreamModel(path).create_stream(),
    "detector.onnx": lambda path: DetectorModel(path).create_stream(),
    "scores.onnx": lambda path: ScoreModel(path).create_batch(2),
    "snapshot": lambda path: StreamModel(path.parent / "model.onnx").create_stream().restore(path),
}


def is_refused(load: Callable[[Path], Any], path: Path) -> bool:
    """Load; anything but the library's own error is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load(path)
        except XLSTMError:
            return True
    return False


def test_the_files_are_good(folder: Path) -> None:
    for name, load in LOADERS.items():
        assert not is_refused(load, folder / name), name


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_bytes(name: str, folder: Path) -> None:
    rng, whole = random.Random(0), (folder / name).read_bytes()
    path, refused = folder / f"damaged {name}", 0
    for _ in range(ROUNDS):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 4, 64))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        refused += is_refused(LOADERS[name], path)
    assert refused > ROUNDS / 4


def mutations(content: Any, rng: random.Random) -> Iterator[Any]:
    """Give copies of JSON content in which one value is another, or gone."""
    for _ in range(ROUNDS):
        changed = json.loads(json.dumps(content))
        place, key = rng.choice([*_places(changed)])
        if isinstance(place, dict) and rng.random() < 0.3:
            del place[key]
        else:
            place[key] = rng.choice(ODD)
        yield changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@pytest.mark.parametrize("name", ["forecaster", "detector"])
def test_headers_that_say_something_else(name: str, folder: Path) -> None:
    rng = random.Random(1)
    with np.load(folder / name) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = json.loads(str(arrays.pop("header")))
    path, refused = folder / f"other {name}", 0
    for changed in mutations(header, rng):
        with path.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(changed)), **arrays)
        refused += is_refused(LOADERS[name], path)
    assert refused > ROUNDS / 10


@pytest.mark.parametrize("name", ["model.onnx", "detector.onnx", "scores.onnx"])
def test_metadata_that_say_something_else(name: str, folder: Path) -> None:
    rng, graph = random.Random(2), onnx.load(folder / name)
    path, refused = folder / f"other {name}", 0
    for entry in graph.metadata_props:
        if not entry.value.startswith("{"):
            continue
        kept = entry.value
        for changed in mutations(json.loads(kept), rng):
            entry.value = json.dumps(changed)
            onnx.save(graph, path)
            refused += is_refused(LOADERS[name], path)
        entry.value = kept
    assert refused > ROUNDS / 4


STREAMS: dict[str, Callable[[Path], Any]] = {
    "stream": lambda folder: StreamModel(folder / "model.onnx").create_stream(),
    "pool": lambda folder: StreamPool(StreamModel(folder / "model.onnx")),
    "detector": lambda folder: DetectorModel(folder / "detector.onnx").create_stream(),
    "pool of detectors": lambda folder: DetectorPool(DetectorModel(folder / "detector.onnx")),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_snapshots_that_say_something_else(kind: str, folder: Path) -> None:
    rng, stream = random.Random(3), STREAMS[kind](folder)
    for reading in ([1.0, 2.0], [2.0, 1.0]):
        stream.step({"a": reading, ("b", 1): reading} if "pool" in kind else reading)
    magic, _, header, raw = written(stream).split(b"\n", 3)
    changes = [(changed, raw) for changed in mutations(json.loads(header), rng)]
    changes.append((json.loads(header), b"\xff" * len(raw)))  # NaN
    path, refused = folder / f"other {kind}", 0
    for changed, numbers in changes:
        rest = json.dumps(changed).encode() + b"\n" + numbers
        digest = hashlib.sha256(rest).hexdigest().encode()
        path.write_bytes(b"\n".join((magic, digest, rest)))
        before = written(stream)
        is_wrong = is_refused(stream.restore, path)
        assert not is_wrong or written(stream) == before
        refused += is_wrong
    assert is_wrong
    assert refused > ROUNDS / 4


def written(stream: Any) -> bytes:
    """Return the snapshot of a stream or a pool."""
    file = io.BytesIO()
    stream.snapshot(file)
    return file.getvalue()


def test_no_code_and_no_bombs(folder: Path) -> None:
    objects, path = np.array([{"a": 1}], dtype=object), folder / "pickle"
    with path.open("wb") as file:
        np.savez(file, header=objects)
    assert is_refused(XLSTMForecaster.load, path)
    bomb = folder / "bomb"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        inner = io.BytesIO()
        np.save(inner, np.zeros(30_000_000))
        archive.writestr("header.npy", inner.getvalue())
    assert bomb.stat().st_size < 1_000_000
    assert taken(XLSTMForecaster.load, bomb) < MOST_TAKEN


def taken(load: Callable[[Path], Any], path: Path) -> int:
    """Return the bytes that arrays took at most while a file was refused."""
    tracemalloc.start()
    try:
        assert is_refused(load, path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "part"), [("forecaster", "context"), ("detector", "known")])
@pytest.mark.parametrize("array", [np.empty((10**7, 0)), np.empty(10**7, "V0")])
def test_arrays_of_a_small_file_that_are_long_take_no_memory(
    name: str, part: str, array: Any, folder: Path
) -> None:
    with np.load(folder / name) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = json.loads(str(arrays.pop("header")))
    (header["known"] if name == "detector" else header)["lengths"] = [len(array)]
    if name == "forecaster":
        arrays["covariates"] = np.empty((len(array), 0))
    arrays[part] = array
    path = folder / f"long {name}"
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)
    assert taken(LOADERS[name], path) < MOST_TAKEN


@pytest.mark.parametrize("what", ["lags", "no channels", "text"])
def test_a_detector_that_says_it_is_large_takes_no_memory(what: str, folder: Path) -> None:
    graph = onnx.load(folder / "detector.onnx")
    (entry,) = (one for one in graph.metadata_props if one.key == DETECTOR_KEY)
    record = json.loads(entry.value)
    state, wide = record["state"], 3000
    if what == "text":
        state["gap"] = {"shape": [1000], "dtype": f"U{wide}", "values": ["x"] * 1000}
    else:
        record["config"]["n_lags"] = wide - 1
    if what == "no channels":
        state["whitening/center"] = {"shape": [0], "dtype": "float64", "values": []}
        nothing = {"shape": [0, wide, wide], "dtype": "float64", "values": []}
        state["whitening/head/doubt"] = nothing
        state["whitening/relation/covariance"] = nothing | {"shape": [0, 0]}
    entry.value = json.dumps(record)
    onnx.save(graph, folder / "large.onnx")
    assert taken(LOADERS["detector.onnx"], folder / "large.onnx") < MOST_TAKEN
