"""Readings go by their names where they have some, and by their order where not."""

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.exceptions import StreamError
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
