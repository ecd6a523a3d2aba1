"""Times of a history, read at once, and the stamps that are left out between its readings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timezone
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.checks import is_far
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.times import Time, Told, moment_after, read_times, zone_of

Stamps = NDArray[np.datetime64]
Moments = Sequence[tuple[int, ...]]


class History(NamedTuple):
    """Where the readings of a history lie in time.

    Attributes
    ----------
    places : ndarray of int64, shape (readings,)
        Their rows; those between are stamps that were left out.
    rows : int
        All of them.
    wall : ndarray of datetime64, or None
        What the clock on the wall shows at each row, and at the next ones where they were given;
        None where no time was told.
    first, last : int
        The moments of the first and the last reading.
    before : int
        Stamps that were left out before the first.
    """

    places: NDArray[np.int64]
    rows: int
    wall: Stamps | None
    first: int
    last: int
    before: int

    def spread(self, readings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the readings `(readings, C)` among missing ones, `(rows, C)`."""
        if self.rows == len(readings):
            return readings
        rows = np.full((self.rows, readings.shape[1]), np.nan, np.float32)
        rows[self.places] = readings
        return rows


def read_history_times(
    time: Sequence[Time] | None,
    length: int,
    *,
    contract: Contract,
    steps: Steps,
    is_calendar: bool,
    last: int,
    untold: int,
) -> History:
    """Read the times of many readings, each after the one before.

    Parameters
    ----------
    time : sequence of str, datetime or datetime64, optional
        `length` of them, or also the `horizon` ones after the last.
    length : int
        Readings.
    contract : Contract
        That of the model.
    steps : Steps
        What finds the stamps that are left out.
    is_calendar : bool
        As for `read_times`.
    last, untold : int
        The moment that was told before these, and the readings since then that told none.

    Raises
    ------
    StreamError
        Where there are more or fewer, one cannot be used, or one is far from all others.
    """
    if time is None:
        return History(np.arange(length), length, None, last, last, 0)
    known = 0 if isinstance(time, str) or not hasattr(time, "__len__") else len(time)
    if known not in (length, length + contract.horizon):
        raise StreamError(
            f"`time` has one time for each of the {length} readings, or these and the "
            f"{contract.horizon} after them; got {known or time!r}."
        )
    wall, stands_for = _read(time, zone=contract.zone, is_calendar=is_calendar)
    moments, counts = [], []
    for clock, each in zip(wall, stands_for[:length]):  # noqa: B905 - the next ones are no readings
        moments.append(moment_after(Told(clock, each), last, zone=contract.zone))
        counts.append(steps.left_out(moments[-1], last, untold))
        last, untold = moments[-1], 0
    before, counts[0] = counts[0], 0
    _check_not_far(counts, wall)
    places = np.arange(length) + np.cumsum(counts)
    rows = int(places[-1]) + 1
    full = np.empty(rows + len(wall) - length, wall.dtype)
    full[places], full[rows:] = wall[:length], wall[length:]
    for place, moment, count in zip(places.tolist(), moments, counts, strict=True):
        for back in range(1, count + 1):
            full[place - back] = steps.before(moment, back).wall
    return History(places, rows, full, moments[0], last, before)


def _check_not_far(counts: list[int], wall: Stamps) -> None:
    if is_far(sum(counts), length=len(counts)):
        row = int(np.argmax(counts))
        raise StreamError(
            f"`time` has a gap of many times the length of the history before {wall[row]} in row "
            f"{row}: correct the time, or give the readings after it."
        )


def _read(times: Sequence[Time], *, zone: str | None, is_calendar: bool) -> tuple[Stamps, Moments]:
    """Return what the clock on the wall shows at times, and the moments that each may stand for."""
    try:
        stamps, is_zoned = _stamps(times)
        if is_zoned:
            wall, moments = _of_zoned(stamps, zone, is_calendar=is_calendar)
        else:
            wall, moments = stamps, _of_clock(stamps, zone)
    except (TypeError, ValueError, OverflowError):  # a StreamError is one too
        # One by one, to name what is wrong or to read what is not all alike.
        told = [read_times(one, zone=zone, is_calendar=is_calendar) for one in times]
        return np.array([one.wall for one in told], "M8[ms]"), [one.moments for one in told]
    return wall.astype("M8[ms]"), moments


def _stamps(times: Any) -> tuple[Stamps, bool]:
    """Return times without a zone, and whether they are UTC since all came with one."""
    dtype = getattr(times, "dtype", None)
    if getattr(dtype, "kind", None) == "M":
        # Of what knows its zone numpy makes UTC.
        given = times if isinstance(times, np.ndarray) else np.asarray(times, "M8[us]")
        years = given.astype("M8[Y]").astype(np.int64) + 1970
        if not ((years >= MINYEAR) & (years <= MAXYEAR)).all():
            raise ValueError("beyond the calendar, or no time")
        return given.astype("M8[us]"), getattr(dtype, "tz", None) is not None
    read = [datetime.fromisoformat(one) if isinstance(one, str) else one for one in times]
    if not all(isinstance(one, datetime) for one in read):
        raise TypeError("not alike")
    zoned = {one.tzinfo is not None for one in read}
    if zoned == {True}:
        read = [one.astimezone(timezone.utc).replace(tzinfo=None) for one in read]
    elif len(zoned) > 1:
        raise ValueError("not alike")
    return np.array(read, "M8[us]"), True in zoned


def _of_zoned(utc: Stamps, zone: str | None, *, is_calendar: bool) -> tuple[Stamps, Moments]:
    moments = [(moment,) for moment in utc.astype(np.int64).tolist()]
    if not is_calendar:
        return utc, moments
    if zone is None:
        raise ValueError("of no clock that the fit knows")
    clock = zone_of(zone)
    wall = [one.replace(tzinfo=timezone.utc).astimezone(clock) for one in utc.tolist()]
    return np.array([one.replace(tzinfo=None) for one in wall], "M8[us]"), moments


def _of_clock(wall: Stamps, zone: str | None) -> Moments:
    if zone is None:
        return [(moment,) for moment in wall.astype(np.int64).tolist()]
    clock = zone_of(zone)
    # Where the clock is set back, an hour has two offsets.
    offsets = [
        [one.replace(tzinfo=clock, fold=fold).utcoffset() for fold in (0, 1)]
        for one in wall.tolist()
    ]
    moments = wall[:, None] - np.array(offsets, "m8[us]")
    return [*map(tuple, np.sort(moments.astype(np.int64), 1).tolist())]
