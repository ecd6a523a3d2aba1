"""Readings go by their names where they have some, and by their order where not."""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from tests.conftest import CONFIGS, build_model
from xlstm_ts.exceptions import SeriesWarning, StreamError
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.streaming import StreamModel, StreamPool
from xlstm_ts.streaming.readings import read_history, read_reading

CHANNELS = ("load", "oil")


@pytest.mark.parametrize(
    "reading",
    [
        [1.0, 2.0],
        {"oil": 2.0, "load": 1.0},
        pd.Series({"oil": 2.0, "load": 1.0}),
        pd.Series([1.0, 2.0]),
        pd.Series([1.0, 2.0], pd.date_range("2024", periods=2)),
    ],
    ids=["list", "mapping", "row", "counted", "times"],
)
def test_a_reading_by_name_or_order(reading: object) -> None:
    assert read_reading(reading, CHANNELS) == [1.0, 2.0]


def test_what_pandas_has_no_number_for_is_missing() -> None:
    row = pd.Series([pd.NA, 1.0], ["oil", "load"], dtype="Float64")
    np.testing.assert_array_equal(read_reading(row, CHANNELS), [1.0, np.nan])
    with pytest.raises(StreamError, match="A reading has one number for each of load, oil"):
        read_reading({"oil": pd.NA, "load": 1.0}, CHANNELS)


def test_masks_in_mappings_and_lists_of_rows_hide_readings() -> None:
    assert np.isnan(read_reading({"oil": np.ma.masked, "load": 1.0}, CHANNELS)[1])
    rows = [np.ma.array([1.0, -999.0], mask=[False, True]), [3.0, 4.0]]
    np.testing.assert_array_equal(read_history(rows, CHANNELS), [[1, np.nan], [3, 4]])
    columns = {"load": [1.0, 3.0], "oil": np.ma.array([-999.0, 4.0], mask=[True, False])}
    np.testing.assert_array_equal(read_history(columns, CHANNELS), [[1, np.nan], [3, 4]])


def test_a_pool_goes_by_the_names_of_rows(graph_path: Path) -> None:
    """Rows of frames, in an order of their own, are what a stream takes them for."""
    model = StreamModel(graph_path)
    rows = [pd.Series({"b": 3.0, "a": 50.0}), {"b": 4.0, "a": 40.0}, pd.Series([50.0, 3.0])]
    for given in ([rows[0]] * 2, rows, [*rows, np.array([50.0, 3.0])]):
        outputs = StreamPool(model).step(dict(enumerate(given)))
        for output, reading in zip(outputs.values(), given, strict=True):
            expected = model.create_stream().step(reading)
            np.testing.assert_allclose(output.quantiles, expected.quantiles, rtol=1e-5)
    with pytest.raises(StreamError, match=r"Key 1: .*got those of a, c"):
        StreamPool(model).step({0: rows[0], 1: pd.Series({"a": 50.0, "c": 3.0})})
    stream, other = model.create_stream(), model.create_stream()
    np.testing.assert_array_equal(
        stream.warm_up([rows[0], rows[1]]).quantiles,
        other.warm_up([[50.0, 3.0], [40.0, 4.0]]).quantiles,
    )


def test_a_history_by_name_or_order() -> None:
    frame = pd.DataFrame({"oil": [2.0, np.nan], "load": [1.0, 3.0]})
    for given in (frame, {"oil": frame["oil"], "load": frame["load"]}, frame[["load", "oil"]]):
        np.testing.assert_array_equal(read_history(given, CHANNELS), [[1, 2], [3, np.nan]])
    by_order = frame[["load", "oil"]].set_axis([0, 1], axis=1)
    np.testing.assert_array_equal(read_history(by_order, CHANNELS), [[1, 2], [3, np.nan]])


@pytest.mark.parametrize(
    "reading",
    [{"load": 1.0}, {"load": 1.0, "oil": 2.0, "gas": 3.0}, pd.Series({"load": 1, "a": 2})],
)
def test_other_names_are_refused(reading: object) -> None:
    with pytest.raises(StreamError, match="one number for each of load, oil, got those of load"):
        read_reading(reading, CHANNELS)


@pytest.mark.parametrize(("transform", "lowest"), [("log", 0), ("log1p", -1)])
def test_what_has_no_logarithm_is_told_once(
    transform: str, lowest: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, transform, {"target_transform": transform})
    graph = build_step_graph(
        build_model(transform), channels=("a", "b", "c"), step=None, library_version="0"
    )
    onnx.save(graph, tmp_path / "model.onnx")
    model = StreamModel(tmp_path / "model.onnx")
    message = f"reading of b is {lowest}, but .* above {lowest}: it counts as a missing reading"
    for begin in ("step", "warm_up"):
        stream, gap = model.create_stream(), model.create_stream()
        reading = [5.0, lowest, 7.0]
        with pytest.warns(SeriesWarning, match=message):
            getattr(stream, begin)(reading if begin == "step" else [reading])
        gap.step([5.0, np.nan, 7.0])
        for value in (lowest, -3.0):  # once is enough
            output = stream.step([5.0, value, 7.0])
            expected = gap.step([5.0, np.nan, 7.0])
            np.testing.assert_array_equal(output.quantiles, expected.quantiles)
    pool = StreamPool(model)
    with pytest.warns(SeriesWarning, match=f"Key 'y': The {message}"):
        pool.step({"x": [5.0, lowest + 0.1, 7.0], "y": reading})
    pool.step({"x": reading})
