"""Lines with all that a model may ask for give what the streams themselves give."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import small
from xlstm_ts.cli.feeds import ReadingParser
from xlstm_ts.cli.inspection import describe, in_words
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.serving import Served, Server

HORIZON, LENGTH = 4, 120
INDEX = pd.date_range("2024-02-27 05:00", periods=LENGTH, freq="h")
STATIC = {"a": {"kind": "shop", "size": 1.0}, "b": {"kind": "web", "size": 5.0}}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((LENGTH, 2))
Y = 10 + RNG.standard_normal(LENGTH)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a graph with columns of every kind."""
    y, beside = pd.Series(Y, INDEX, name="load"), pd.DataFrame(X, INDEX, ["temp", "promo"])
    panels = [pd.concat({"a": one, "b": one + 1}, names=["key", "time"]) for one in (y, beside)]
    options = {"known_future": ("promo",), "calendar": ("hour", "dayofweek")}
    static = pd.DataFrame.from_dict(STATIC, "index")
    made = tmp_path_factory.mktemp("rich") / "model.onnx"
    export_onnx(small(**options).fit(*panels, static=static), made, series="b")
    return made


def line(row: int, *, key: str) -> str:
    record = {"id": key, "time": str(INDEX[row]), "load": Y[row], "temp": X[row, 0]}
    ahead = X[row + 1 : row + 1 + HORIZON, 1].tolist()
    return json.dumps({**record, "promo": X[row, 1], "future": {"promo": ahead}, **STATIC[key]})


@pytest.mark.parametrize("key", ["a", "b"])
@pytest.mark.parametrize("is_keyed", [True, False])
def test_served_as_by_a_stream(is_keyed: bool, key: str, path: Path) -> None:
    model = StreamModel(path)
    parser = ReadingParser(model.contract, key="id" if is_keyed else None, report=lambda text: None)
    server = Server(model, is_keyed=is_keyed, static=None if is_keyed else STATIC[key])
    stream = model.create_stream(static=STATIC[key])
    keys = ["a", "b"] if is_keyed else [key]
    readings = [parser.from_json(line(row, key=one)) for row in range(30) for one in keys]
    served = server.serve(readings)
    assert all(isinstance(one, Served) for one in served)
    for row, one in enumerate(served[keys.index(key) :: len(keys)]):
        now, ahead = {"temp": X[row, 0], "promo": X[row, 1]}, X[row + 1 : row + 1 + HORIZON, 1]
        output = stream.step(Y[row], now, {"promo": ahead}, time=str(INDEX[row]))
        np.testing.assert_allclose(one.output.quantiles, output.quantiles, rtol=1e-5)
    assert server.streams == len(keys)


def test_one_that_cannot_be_used_is_left_out_of_those_served_together(path: Path) -> None:
    model = StreamModel(path)
    parser = ReadingParser(model.contract, key="id", report=pytest.fail)
    good = [parser.from_json(line(0, key=key)) for key in "ab"]
    bad = [good[0]._replace(static={}, key="c"), good[1]._replace(key="d", time=None)]
    server = Server(model, is_keyed=True)
    first, no_static, no_time, last = server.serve([good[0], *bad, good[1]])
    assert isinstance(first, Served)
    assert isinstance(last, Served)
    assert isinstance(no_static, StreamError)
    assert "Key 'c': The model knows each stream by kind, size" in str(no_static)
    assert "`time` of the reading is missing" in str(no_time)
    assert server.streams == 2


def test_what_is_static_may_be_given_for_all(path: Path) -> None:
    model = StreamModel(path)
    parser = ReadingParser(model.contract, key="id", report=pytest.fail)
    reading = parser.from_json(line(0, key="a"))
    said, given = (
        Server(model, is_keyed=True, static=static).serve([one])[0]
        for static, one in ((STATIC["b"], reading), (STATIC["a"], reading._replace(static={})))
    )
    np.testing.assert_array_equal(said.output.quantiles, given.output.quantiles)


def test_inspection_tells_of_every_column(path: Path) -> None:
    words = "\n".join(in_words(describe(path)))
    assert "temp, promo, at the same time" in words
    assert "promo at each of the next 4 times, under 'future'" in words
    assert "needed with each reading, for hour, dayofweek" in words
    assert "kind, one of shop, web; size, a number; given once for each stream" in words


def test_snapshot_of_another_kind_is_refused(path: Path, tmp_path: Path) -> None:
    model = StreamModel(path)
    model.create_stream(static=STATIC["a"]).snapshot(tmp_path / "state", offset=3)
    with pytest.raises(StreamError, match="was not written by the command `stream`"):
        Server(model, is_keyed=False, static=STATIC["a"]).restore(tmp_path / "state")
