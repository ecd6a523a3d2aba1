"""Times go forward, whatever clock they are told by."""

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming import histories
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.histories import read_history_times
from xlstm_ts.streaming.times import NEVER, moment_after, read_times

ROME = "Europe/Rome"


def moment(time, last: int = NEVER, zone: str | None = ROME) -> int:
    return moment_after(read_times(time, zone=zone, is_calendar=True), last, zone=zone)


def test_the_hour_that_comes_twice_is_told_twice() -> None:
    """By the clock on the wall 2:30 comes again when summer time ends, but not a third time."""
    last, moments = NEVER, []
    for clock in ("02:00", "02:30", "02:00", "02:30", "03:00"):
        last = moment(f"2024-10-27 {clock}", last)
        moments.append(last)
    assert (np.diff(moments) == 1800 * 10**6).all()
    with pytest.raises(StreamError, match=r"02:30:00\+01:00, which is not after .*03:00:00\+01:00"):
        moment("2024-10-27 02:30", last)


def test_a_time_with_a_zone_stands_for_one_moment() -> None:
    first = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo(ROME))
    last = moment(first)
    assert moment(first.astimezone(datetime.timezone.utc)) == last
    with pytest.raises(StreamError, match="not after"):
        moment(first, last)
    assert moment(first.replace(fold=1), last) - last == 3600 * 10**6


def test_the_hour_that_is_left_out_goes_forward() -> None:
    last = NEVER
    for clock in ("01:30", "03:00", "03:30"):
        last = moment(f"2024-03-31 {clock}", last)


@pytest.mark.parametrize("zone", [None, "+01:00", "Nowhere/Else"])
def test_without_a_zone_that_is_known_the_clock_is_all(zone: str | None) -> None:
    last = moment("2024-10-27 02:30", zone=zone)
    assert last == moment(np.datetime64("2024-10-27T02:30"), zone=zone)
    with pytest.raises(StreamError, match="2024-10-27 02:30:00"):
        moment("2024-10-27 02:30", last, zone=zone)


@pytest.mark.parametrize("zone", ["UTC+05:30", "+05:30", "Asia/Kolkata"])
def test_a_zone_may_be_an_offset(zone: str) -> None:
    """As that of a file of which each time has the same one."""
    told = read_times("2024-10-27T06:30+00:00", zone=zone, is_calendar=True)
    assert told.wall == np.datetime64("2024-10-27T12:00")
    assert told.moments == read_times("2024-10-27T12:00", zone=zone, is_calendar=True).moments


def test_a_date_is_its_midnight() -> None:
    assert moment(datetime.date(2024, 5, 1)) == moment("2024-05-01T00:00")


def test_the_first_of_many_counts() -> None:
    times = ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert moment(times) == moment("2024-01-01")
    told = read_times(times, zone=None, is_calendar=True)
    np.testing.assert_array_equal(told.wall, np.array(times, "M8[ms]"))


@pytest.mark.parametrize("time", [[], 5, "noon", np.datetime64("NaT"), np.datetime64(10**6, "Y")])
def test_what_is_no_time(time) -> None:
    with pytest.raises(StreamError, match="cannot be read as a time"):
        moment(time)


NIGHT = pd.date_range("2024-10-26 22:00", periods=9, freq="h", tz=ROME)  # an hour comes twice
ALIKE = {
    "index": NIGHT,
    "of another zone": NIGHT.tz_convert("Asia/Tokyo"),
    "column": pd.Series(NIGHT),
    "stamps": [*NIGHT],
    "texts": [str(time) for time in NIGHT],
    "clock": NIGHT.tz_localize(None),
    "array": NIGHT.tz_localize(None).to_numpy(),
    "texts of the clock": [str(time) for time in NIGHT.tz_localize(None)],
}


@pytest.mark.parametrize("zone", [ROME, "UTC+01:00", None])
@pytest.mark.parametrize("kind", ALIKE)
def test_times_that_are_alike_are_read_at_once(
    kind: str, zone: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what each of them is alone."""
    times = ALIKE[kind]
    if zone != ROME:
        times = times[:5]  # by the clock alone no hour comes twice
    contract = Contract(
        channels=("a",), horizon=99, quantiles=(0.5,), step="h", state=(), library_version="0",
        seconds=3600, zone=zone,
    )  # fmt: skip
    is_calendar = zone is not None
    alone = [read_times(time, zone=zone, is_calendar=is_calendar) for time in times]
    last = NEVER
    for one in alone:
        last = moment_after(one, last, zone=zone)
    monkeypatch.setattr(histories, "read_times", None)
    history = read_history_times(
        times, len(times), contract=contract, steps=Steps(contract), is_calendar=is_calendar,
        last=NEVER, untold=0,
    )  # fmt: skip
    np.testing.assert_array_equal(history.wall, [one.wall for one in alone])
    assert (history.last, history.rows, history.before) == (last, len(times), 0)


@pytest.mark.parametrize("time", [[10**6], ["NaT"]])
def test_an_array_beyond_the_calendar_is_no_time(time: list[object]) -> None:
    contract = Contract(
        channels=("a",), horizon=9, quantiles=(0.5,), step="h", state=(), library_version="0"
    )
    with pytest.raises(StreamError, match="cannot be read as a time"):
        read_history_times(
            np.array(time, "M8[Y]"), 1, contract=contract, steps=Steps(contract),
            is_calendar=False, last=NEVER, untold=0,
        )  # fmt: skip
