"""Times go forward, whatever clock they are told by."""

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from xlstm_ts.exceptions import StreamError
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
