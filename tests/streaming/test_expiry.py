"""Who is silent for too long is forgotten; who tells a wrong time forgets nobody else."""

from datetime import timedelta

import numpy as np
import pytest

from xlstm_ts.streaming.expiry import NEW, Expiry, Heard
from xlstm_ts.streaming.times import NEVER

HOUR = 3_600_000_000
FAR = 75 * 365 * 24  # hours: what a wrong clock tells


class Room:
    """Keys with their slots: what a pool is to an expiry."""

    def __init__(self, expire_after: int | timedelta | None) -> None:
        self.expiry, self.heard = Expiry(expire_after), Heard.nobody(200)
        self.places: dict[str, int] = {}

    def step(self, hours: dict[str, float] | str) -> set[str]:
        """Take a call, `FAR` for a wrong clock; return who is forgotten."""
        moments = [int(hour * HOUR) for hour in hours.values()] if isinstance(hours, dict) else []
        due = self.expiry.look(self.heard, self.find(hours), moments)
        gone = {key for key, place in self.places.items() if place in due.stale}
        for key in gone:
            self.heard.leave(self.places.pop(key))
        for key in hours:
            self.join(key)
        self.expiry.commit(self.heard, self.find(hours), moments, clock=due.clock)
        return gone

    def join(self, key: str) -> None:
        if key not in self.places:
            self.places[key] = int(np.flatnonzero(~self.heard.is_taken)[0])
            self.heard.take(self.places[key], call=self.expiry.calls)

    def find(self, keys: dict[str, float] | str) -> np.ndarray:
        return np.array([self.places.get(key, NEW) for key in keys], np.int64)


def test_by_calls() -> None:
    room = Room(2)
    calls = ["abc", "b", "b", "bc", "", "", "b"]
    assert [room.step(keys) for keys in calls] == [
        set(),
        set(),
        set(),
        {*"ac"},
        set(),
        set(),
        {*"bc"},
    ]


def test_none_keeps_all() -> None:
    room = Room(None)
    assert not any(room.step({key: 10 * place}) for place, key in enumerate("abcdef"))


def test_by_times() -> None:
    room = Room(timedelta(hours=2))
    assert room.step({"a": 0, "b": 0, "c": 0}) == set()
    assert room.step({"a": 2, "b": 2}) == set()
    assert room.step({"a": 2.5, "b": 2.5}) == {"c"}
    assert room.step({}) == set()


def test_looking_changes_nothing() -> None:
    room = Room(timedelta(hours=2))
    room.step({"a": 0, "b": 0, "c": 0})
    before = [array.copy() for array in vars(room.heard).values()]
    for _ in range(2):
        due = room.expiry.look(room.heard, room.find("ab"), [5 * HOUR, 5 * HOUR])
        assert due.stale.tolist() == [0, 1, 2]
    for array, was in zip(vars(room.heard).values(), before, strict=True):
        np.testing.assert_array_equal(array, was)
    assert room.expiry.calls == 1


def test_who_comes_is_judged_by_its_own_times() -> None:
    room = Room(timedelta(hours=2))
    room.step({"a": 0, "b": 0, "late": -9})
    assert room.step({"a": 1, "b": 1, "late": -8}) == set()
    assert room.step({"a": 3.5, "b": 2, "late": -7}) == {"a"}
    assert room.step({"a": 3.6, "b": 2.1}) == {"late"}


def test_one_wrong_clock_of_many_does_not_count() -> None:
    room, other = Room(timedelta(hours=2)), Room(timedelta(hours=2))
    keys = [f"sensor {place}" for place in range(99)]
    for hour in range(10):
        told = {key: float(hour) for key in keys if hour < 3 or key != keys[7]}
        assert room.step({"wrong": FAR + hour, **told}) == other.step(told)
        assert room.places.keys() == {"wrong", *other.places}
    assert keys[7] not in room.places


@pytest.mark.parametrize("wrong", [FAR, -FAR])
def test_one_wrong_clock_of_calls_of_one_key_does_not_count(wrong: float) -> None:
    room, gone = Room(timedelta(hours=2)), []
    room.step({"silent": 0})
    for hour in range(6):
        for key in "abc":
            gone += room.step({key: hour})
        gone += room.step({"wrong": wrong + hour})
    assert [key for key in gone if key != "wrong"] == ["silent"]
    assert room.places.keys() >= {*"abc"}


def test_what_two_wrong_clocks_did_ends_with_them() -> None:
    room = Room(timedelta(hours=2))
    room.step({"a": 0, "b": 0})
    room.step({"x": FAR})
    assert room.step({"y": FAR}) == {"a", "b"}  # two of two: nothing tells that they are wrong
    for hour in range(1, 5):
        assert room.step({"a": hour}) == set()
        assert room.step({"b": hour}) == set()


def test_a_key_alone_goes_by_its_own_times() -> None:
    room = Room(timedelta(hours=2))
    assert room.step({"a": 0}) == room.step({"a": 2}) == set()
    assert room.step({"a": 4.5}) == {"a"}
    assert room.step({"b": 5}) == room.step({"b": 6.6}) == set()
    # Nobody but b says that it is so late, and b may be wrong; c agrees.
    assert room.step({"b": 8}) == set()
    assert room.step({"c": 8}) == {"a"}


def test_who_told_no_time_waits_from_the_first_that_is_known() -> None:
    room = Room(timedelta(hours=2))
    room.join("given")
    assert room.step({"a": 0, "b": 0}) == room.step({"a": 2, "b": 2}) == set()
    assert room.step({"a": 2.1, "b": 2.1}) == {"given"}


@pytest.mark.parametrize("expire_after", [timedelta.max, 2**80])
def test_very_long_is_for_ever(expire_after: timedelta | int) -> None:
    room = Room(expire_after)
    room.join("given")
    assert not any(room.step({"a": hour, "b": hour}) for hour in (-FAR, 0, FAR))


def test_slots_double() -> None:
    heard = Heard.nobody(2)
    heard.take(1, call=7)
    more = heard.doubled()
    assert more.is_taken.tolist() == [False, True, False, False]
    assert more.call[1] == 7
    assert more.moment.tolist() == [NEVER] * 4
