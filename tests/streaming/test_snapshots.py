"""What a snapshot holds goes on to the bit; what is damaged or of another model is refused."""

import inspect
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ARRAY, small
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import Stream, StreamModel, StreamPool, snapshots

READINGS = [50.0, 3.0] + np.random.default_rng(0).standard_normal((15, 2)) * [10, 1]
KILLS, COUNT = 5, 50_000


@pytest.fixture(scope="module")
def model(graph_path: Path) -> StreamModel:
    return StreamModel(graph_path)


@pytest.fixture
def stream(model: StreamModel) -> Stream:
    stream = model.create_stream()
    for reading in READINGS[:7]:
        stream.step(reading)
    return stream


def rest(stream: Stream) -> np.ndarray:
    return np.stack([stream.step(reading).quantiles for reading in READINGS[7:]])


def test_a_stream_goes_on_bit_for_bit(model: StreamModel, stream: Stream, tmp_path: Path) -> None:
    stream.snapshot(tmp_path / "snapshot", offset=7)
    other = model.create_stream()
    other.step(READINGS[3])
    assert other.restore(tmp_path / "snapshot") == 7
    np.testing.assert_array_equal(rest(other), rest(stream))
    assert os.listdir(tmp_path) == ["snapshot"]


def test_a_store_that_keeps_bytes_gets_those_of_the_file(
    model: StreamModel, stream: Stream, tmp_path: Path
) -> None:
    pool, other = StreamPool(model), StreamPool(model)
    pool.step({"pump": READINGS[0]})
    for one in (stream, pool):
        one.snapshot(tmp_path / "snapshot", offset=7)
        one.snapshot(kept := io.BytesIO(), offset=7)
        assert kept.getvalue() == (tmp_path / "snapshot").read_bytes()
    assert other.restore(io.BytesIO(kept.getvalue())) == 7
    np.testing.assert_array_equal(
        *(one.step({"pump": READINGS[1]})["pump"].quantiles for one in (pool, other))
    )
    with pytest.raises(StreamError, match="what was given is damaged"):
        other.restore(io.BytesIO(kept.getvalue()[:-1]))


def test_the_last_time_is_kept(model: StreamModel, stream: Stream, tmp_path: Path) -> None:
    stream.step(READINGS[7], time="2024-03-01 12:00:00.000001")
    stream.snapshot(tmp_path / "snapshot")
    other = model.create_stream()
    assert other.restore(tmp_path / "snapshot") is None
    with pytest.raises(StreamError, match="not after"):
        other.step(READINGS[8], time="2024-03-01 12:00:00.000001")
    other.step(READINGS[8], time="2024-03-01 12:00:00.000002")


@pytest.mark.parametrize("offset", [None, 0, 2**70, 0.1, "ä", [1, ["x", None]], {"0": {"a": True}}])
def test_an_offset_comes_back(stream: Stream, tmp_path: Path, offset: object) -> None:
    stream.snapshot(tmp_path / "snapshot", offset=offset)
    assert stream.restore(tmp_path / "snapshot") == offset


@pytest.mark.parametrize("offset", [(1, 2), {1: 2}, float("nan"), b"x", {"a": (1,)}, object()])
def test_an_offset_that_would_change_is_refused(stream, tmp_path: Path, offset: object) -> None:
    with pytest.raises(StreamError, match="`offset` must be a JSON value"):
        stream.snapshot(tmp_path / "snapshot", offset=offset)
    assert not os.listdir(tmp_path)


def test_each_flipped_bit_and_each_cut_is_found(stream: Stream, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    stream.snapshot(path, offset=7)
    whole = path.read_bytes()
    before = stream.state
    for place in {*range(0, 120, 7), *range(0, len(whole), len(whole) // 50)}:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        for damaged in (bytes(flipped), whole[:place], whole + whole[place : place + 1]):
            path.write_bytes(damaged)
            with pytest.raises(
                StreamError, match=r"snapshot is (damaged|no snapshot|a snapshot of another)"
            ):
                stream.restore(path)
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])
    path.write_bytes(whole.replace(b"snapshot 2", b"snapshot 1"))
    with pytest.raises(StreamError, match="a snapshot of another version of this library"):
        stream.restore(path)
    path.write_bytes(whole)
    assert stream.restore(path) == 7


def test_a_snapshot_that_is_not_there(stream: Stream, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no snapshot .*nowhere"):
        stream.restore(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder"):
        stream.snapshot(tmp_path / "nowhere" / "snapshot")


def test_what_fails_leaves_the_older(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.snapshot(tmp_path / "snapshot", offset=1)

    def full(_: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            stream.snapshot(tmp_path / "snapshot", offset=2)
    assert stream.restore(tmp_path / "snapshot") == 1
    assert os.listdir(tmp_path) == ["snapshot"]


@pytest.mark.parametrize("changed", [{"random_state": 1}, {"patch_length": 3}])
def test_another_model_is_refused_by_name(tmp_path: Path, changed: dict[str, object]) -> None:
    models = []
    for options in ({}, changed):
        export_onnx(small(**options).fit(ARRAY), tmp_path / "model.onnx")
        models.append(StreamModel(tmp_path / "model.onnx"))
    first, other = (model.contract.weights_hash[:12] for model in models)
    for kind in (StreamModel.create_stream, StreamPool):
        kind(models[0]).snapshot(tmp_path / "snapshot")
        with pytest.raises(StreamError, match=f"another model: .*{first}.*this one .*{other}"):
            kind(models[1]).restore(tmp_path / "snapshot")


def test_a_pool_is_no_stream(model: StreamModel, stream: Stream, tmp_path: Path) -> None:
    stream.snapshot(tmp_path / "snapshot")
    with pytest.raises(StreamError, match="holds a stream, not a pool"):
        StreamPool(model).restore(tmp_path / "snapshot")
    StreamPool(model).snapshot(tmp_path / "snapshot")
    with pytest.raises(StreamError, match="holds a pool, not a stream"):
        stream.restore(tmp_path / "snapshot")


def recipe() -> str:
    """Return the recipe of the module: what is to be copied is what is tested."""
    found = re.search(r"::\n\n((?:    .*\n|\n)+)", inspect.getdoc(snapshots) + "\n")
    return textwrap.dedent(found[1])


def of_a_pool(text: str) -> str:
    """Return the recipe for a pool, with an output for each key."""
    for was, now in (
        ("model.create_stream()", "StreamPool(model, expire_after=15)"),
        (
            "stream.step(reading).quantiles.tobytes()",
            "b''.join(one.quantiles.tobytes() for one in stream.step(reading).values())",
        ),
        ("1000", "100"),
    ):
        assert was in text
        text = text.replace(was, now)
    return text


PREFACE = """
import os, sys
import numpy as np
from xlstm_ts.streaming import StreamPool
from xlstm_ts.streaming import StreamModel

def readings_from(start):  # of one sensor
    return np.random.default_rng(0).standard_normal({count})[start:]

def ticks_from(start):  # of some of 40 sensors that come and go
    for tick in range(start, {count} // 10):
        rng = np.random.default_rng(tick)
        keys = np.flatnonzero(rng.random(20) < 0.5) + tick // 500
        yield {{int(key): float(rng.standard_normal()) for key in keys}}

model = StreamModel({path!r})
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
@pytest.mark.parametrize(
    "change",
    [str, lambda text: of_a_pool(text).replace("readings_from", "ticks_from")],
    ids=["stream", "pool"],
)
def test_killed_at_any_moment_nothing_is_lost_and_nothing_comes_twice(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    options = {"d_model": 16, "horizon": 2, "blocks": "m"}
    export_onnx(small(**options).fit(ARRAY), tmp_path / "model.onnx")
    code = PREFACE.format(count=COUNT, path=str(tmp_path / "model.onnx")) + change(recipe())
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "whole", check=True)
    rng, log = np.random.default_rng(), tmp_path / "killed" / "output"
    kills = [kill_once(code, log, wait=float(rng.random()) / 2) for _ in range(KILLS)]
    subprocess.run([sys.executable, "-c", code], cwd=log.parent, check=True)
    assert sum(kills) >= KILLS // 2  # those that were not done before
    assert log.read_bytes() == (tmp_path / "whole" / "output").read_bytes()
    assert len(os.listdir(log.parent)) <= 3  # output, snapshot, and what one killed writer left


def kill_once(code: str, log: Path, *, wait: float) -> bool:
    """Start, wait until the log grows and some time more, kill; return whether it was running."""
    before = log.stat().st_size if log.exists() else -1
    process = subprocess.Popen([sys.executable, "-c", code], cwd=log.parent)
    while process.poll() is None and not (log.exists() and log.stat().st_size != before):
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL
