"""Axes are named in units of time where a series has them."""

import pandas as pd
import pytest

from xlstm_ts.axes import step_unit, time_label


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        ("h", (1, "hours")),
        ("15min", (15, "minutes")),
        ("90min", (1.5, "hours")),
        ("2D", (2, "days")),
        ("10s", (10, "seconds")),
        ("2W-WED", (14, "days")),
        ("250ms", (0.25, "seconds")),
        ("ME", (1, "steps of ME")),
        ("B", (1, "steps of B")),
    ],
)
def test_step_has_a_unit(freq: str, expected: tuple[float, str]) -> None:
    assert step_unit(pd.date_range("2024", periods=3, freq=freq)) == expected


def test_periods_and_counts_have_one_too() -> None:
    assert step_unit(pd.period_range("2024", periods=3, freq="h")) == (1, "hours")
    assert step_unit(pd.period_range("2024", periods=3, freq="M")) == (1, "steps of M")
    assert step_unit(pd.RangeIndex(3)) == (1, "readings")
    assert step_unit(pd.DatetimeIndex(["2024-01-01", "2024-01-05"])) == (1, "readings")


def test_times_are_named() -> None:
    times = pd.date_range("2024", periods=3)
    assert time_label(times) == "time"
    assert time_label(times.rename("date")) == "date"
    assert time_label(times.tz_localize("UTC")) == "time (UTC)"
    assert time_label(pd.RangeIndex(3)) == "reading"
