"""When a key that no longer comes is forgotten: by calls, or by the times that are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.checks import check_integer
from xlstm_ts.streaming.times import NEVER

Places = NDArray[np.int64]
NEW = -1  # the place of a key that has none yet
FOREVER = 2**62  # what is longer would overflow


@dataclass(frozen=True)
class Heard:
    """When the stream in each slot was heard.

    Attributes
    ----------
    is_taken : ndarray of bool, shape (slots,)
        Whether there is a stream.
    call : ndarray of int64, shape (slots,)
        The call that its last reading came with.
    moment : ndarray of int64, shape (slots,)
        The time of that; `NEVER` until one is known.
    """

    is_taken: NDArray[np.bool_]
    call: NDArray[np.int64]
    moment: NDArray[np.int64]

    @classmethod
    def nobody(cls, slots: int) -> Heard:
        """Return slots without a stream."""
        return cls(np.zeros(slots, np.bool_), np.zeros(slots, np.int64), np.full(slots, NEVER))

    def doubled(self) -> Heard:
        """Return these slots and as many without a stream."""
        more = Heard.nobody(len(self.call))
        return Heard(
            np.concatenate((self.is_taken, more.is_taken)),
            np.concatenate((self.call, more.call)),
            np.concatenate((self.moment, more.moment)),
        )

    def take(self, slot: int, *, call: int) -> None:
        """Note a stream that told no time, as one that was heard with a call."""
        self.is_taken[slot], self.call[slot], self.moment[slot] = True, call, NEVER

    def leave(self, slot: int) -> None:
        """Note that a stream left."""
        self.is_taken[slot], self.moment[slot] = False, NEVER


class Due(NamedTuple):
    """What a call brings about.

    Attributes
    ----------
    stale : ndarray of int64, shape (stale slots,)
        The streams that are forgotten, those that come with the call and begin anew among them.
    clock : int
        The time of the pool, `NEVER` where it has none.
    """

    stale: Places
    clock: int


class Expiry:
    """Tells the streams that were silent for too long.

    By times, a stream that comes is judged by its own, whatever the others tell. One that is silent
    is judged by the time of the pool, which more than half of the readings of the call and at least
    two streams have reached: one wrong clock forgets nobody else. Nothing of it is kept from call
    to call, so that what wrong clocks did ends with them.

    Parameters
    ----------
    expire_after : int, timedelta or None
        After how many calls, or how long, a stream is forgotten; None keeps all.

    Attributes
    ----------
    is_by_time : bool
        Whether each call must tell times.
    calls : int
        Those that there were.
    """

    def __init__(self, expire_after: int | timedelta | None) -> None:
        self.is_by_time = isinstance(expire_after, timedelta)
        self._limit = _limit(expire_after)
        self.calls = 0

    def look(self, heard: Heard, places: Places, moments: list[int]) -> Due:
        """Return what a call brings about, and change nothing.

        Parameters
        ----------
        heard : Heard
            All slots.
        places : ndarray of int64, shape (keys,)
            The slots of what comes with the call; `NEW` where there is none yet.
        moments : list of int
            The times of its readings; none where none was told.
        """
        if self._limit is None:
            return Due(np.empty(0, np.int64), NEVER)
        if not self.is_by_time:
            is_stale = heard.is_taken & (heard.call < self.calls + 1 - self._limit)
            return Due(np.flatnonzero(is_stale), NEVER)
        told, is_here = np.array(moments, np.int64), places != NEW
        here = places[is_here]
        clock = _clock(heard.moment, here, told)
        is_stale = _is_before(heard.moment, max(clock, NEVER + self._limit) - self._limit)
        is_stale[here] = _is_before(heard.moment[here], told[is_here] - self._limit)
        return Due(np.flatnonzero(is_stale), clock)

    def commit(self, heard: Heard, places: Places, moments: list[int], *, clock: int) -> None:
        """Note a call, after what is stale has left and what is new has its place."""
        self.calls += 1
        heard.call[places] = self.calls
        if moments:
            heard.moment[places] = moments
        if clock > NEVER:  # who told no time is as old as the first one that is known
            heard.moment[heard.is_taken & (heard.moment == NEVER)] = clock


def _clock(moments: NDArray[np.int64], here: Places, told: NDArray[np.int64]) -> int:
    """Return the time that more than half of what was told now, and two streams, have reached."""
    if not told.size:
        return NEVER
    silent = moments.copy()
    silent[here] = NEVER
    latest = np.append(silent, told)
    latest[latest.argmax()] = NEVER  # what remains has a second one at least
    return int(min(latest.max(), np.sort(told)[(told.size - 1) // 2]))


def _is_before(moments: NDArray[np.int64], least: int | NDArray[np.int64]) -> NDArray[np.bool_]:
    return (moments > NEVER) & (moments < least)


def _limit(expire_after: int | timedelta | None) -> int | None:
    """Return after how many calls, or microseconds, a stream is forgotten."""
    if expire_after is None:
        return None
    if isinstance(expire_after, timedelta):
        if expire_after <= timedelta(0):
            raise ValueError(f"`expire_after` must be above 0, got {expire_after}.")
        return min(expire_after // timedelta(microseconds=1), FOREVER)
    check_integer("expire_after", expire_after, least=1)
    return min(int(expire_after), FOREVER)
