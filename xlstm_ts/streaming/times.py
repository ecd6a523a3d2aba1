"""Times that a stream is told: read by the clock of the fit, and never backwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import StreamError

# How Python and pandas write zones that are offsets.
OFFSET = re.compile(r"(?:UTC)?([+-])(\d\d):(\d\d)(?::(\d\d))?", re.ASCII)
Time = str | date | np.datetime64
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Before every time.
NEVER = np.iinfo(np.int64).min


class Told(NamedTuple):
    """What was told as the time of a reading.

    Attributes
    ----------
    wall : ndarray of datetime64[ms], shape () or (times,)
        What the clock on the wall of the zone shows, with the times of the next readings where
        they were given.
    moments : tuple of int
        What the time of the reading may stand for, in microseconds of UTC (of the clock where the
        fit had no zone), earliest first: where the clock is set back, its hour stands for two.
    """

    wall: NDArray[np.datetime64]
    moments: tuple[int, ...]


def read_times(time: Time | Sequence[Time], *, zone: str | None, is_calendar: bool) -> Told:
    """Read the time of a reading, or those of it and the next ones.

    Parameters
    ----------
    time : str, date, datetime or datetime64, or sequence of them
        As the clock on the wall shows it, or with a zone.
    zone : str or None
        The zone of the fit.
    is_calendar : bool
        Whether the model goes by the calendar: then a zone is an error where the fit had none.

    Raises
    ------
    StreamError
        Where it is no time, or of a zone that cannot be converted.
    """
    try:
        times = [time] if isinstance(time, str | date | np.datetime64) else list(time)
        read = [_read(one) for one in times]
        wall = [_as_wall_clock(one, zone, is_calendar=is_calendar) for one in read]
        moments = _moments(read[0], zone)
    except StreamError:
        raise
    except (TypeError, ValueError, IndexError, OverflowError) as err:
        raise StreamError(
            f"`time` cannot be read as a time: {time!r}; give a datetime, a datetime64 or a text "
            "such as 2026-01-31T12:00."
        ) from err
    is_one = isinstance(time, str | date | np.datetime64)
    return Told(np.array(wall[0] if is_one else wall, "M8[ms]"), moments)


def moment_after(told: Told, last: int, *, zone: str | None) -> int:
    """Return the first moment after `last` that the time may stand for.

    Raises
    ------
    StreamError
        Where there is none.
    """
    for moment in told.moments:
        if moment > last:
            return moment
    raise StreamError(
        f"`time` is {_clock(told.moments[-1], zone)}, which is not after {_clock(last, zone)}, the "
        "time of the reading before: give each reading once, in the order of time, or begin a "
        "new stream."
    )


def _read(time: Time) -> datetime | np.datetime64:
    if isinstance(time, str):
        return datetime.fromisoformat(time)
    if isinstance(time, date) and not isinstance(time, datetime):
        return datetime(time.year, time.month, time.day)
    return time


def _as_wall_clock(time: datetime | np.datetime64, zone: str | None, *, is_calendar: bool) -> Time:
    if isinstance(time, datetime) and time.tzinfo is not None:
        if is_calendar and zone is None:
            raise StreamError(
                f"`time` is {time}, but the fit was on times without a zone: give those of its "
                "clock, by time.replace(tzinfo=None)."
            )
        clock = zone_of(zone) if is_calendar and zone else timezone.utc
        time = time.astimezone(clock).replace(tzinfo=None)
    if np.isnat(np.datetime64(time)):
        raise ValueError("not a time")
    return time


def _moments(time: datetime | np.datetime64, zone: str | None) -> tuple[int, ...]:
    if isinstance(time, np.datetime64):
        time = time.astype("M8[us]").item()
        if not isinstance(time, datetime):
            raise ValueError("beyond the calendar")
    if time.tzinfo is not None:
        return (_microseconds(time),)
    if zone is None:
        return (_microseconds(time.replace(tzinfo=timezone.utc)),)
    try:
        clock = zone_of(zone)
    except StreamError:  # without a database of zones the clock is all there is
        clock = timezone.utc
    both = {_microseconds(time.replace(tzinfo=clock, fold=fold)) for fold in (0, 1)}
    return tuple(sorted(both))


def _microseconds(time: datetime) -> int:
    # Between zones datetime reckons in UTC, and in integers.
    return (time - EPOCH) // timedelta(microseconds=1)


def wall_clock(moment: int, zone: str | None) -> np.datetime64:
    """Return what the clock on the wall of the zone shows at a moment."""
    return np.datetime64(_clock(moment, zone).replace(tzinfo=None), "us")


def _clock(moment: int, zone: str | None) -> datetime:
    """Return the time of the zone; without one that is known, that of the clock."""
    time: datetime = np.datetime64(moment, "us").item()
    try:
        return time.replace(tzinfo=timezone.utc).astimezone(zone_of(zone)) if zone else time
    except StreamError:
        return time


def zone_of(name: str) -> tzinfo:
    """Return a zone by its name, or by an offset such as that of "UTC+01:00".

    Raises
    ------
    StreamError
        Where there is no such zone, or no database of zones.
    """
    if offset := OFFSET.fullmatch(name):
        sign, *numbers = offset.groups(default="0")
        hours, minutes, seconds = map(int, numbers)
        ahead = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return timezone(-ahead if sign == "-" else ahead)
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError) as err:
        raise StreamError(
            f"The zone {name} of the fit is not known here: give `time` without a zone, as its "
            "clock shows it."
        ) from err
