"""Pools of detectors: a verdict for each of thousands of sensors, by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.anomaly.budgets import Contamination, find_alpha
from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.anomaly.whitening import Innovation
from xlstm_ts.exceptions import StreamError
from xlstm_ts.files import content_of
from xlstm_ts.streaming.banks import Places
from xlstm_ts.streaming.columns import StreamColumns
from xlstm_ts.streaming.detectors import HOST, MODEL, DetectorModel
from xlstm_ts.streaming.expiry import NEW, Expiry
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.inputs import InputReader, Times
from xlstm_ts.streaming.keys import Key, key_from_json, plain_key
from xlstm_ts.streaming.sensors import Sensors
from xlstm_ts.streaming.slots import Slots, empty_slots, fitting_batch
from xlstm_ts.streaming.snapshots import Place, Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.states import checked_state
from xlstm_ts.streaming.times import NEVER

FIELDS = ("last", "untold")  # of slots, in snapshots
HEARD = ("call", "moment")


class DetectorPool:
    """Streams of one detector by key: a call takes one reading of some of them and judges those.

    A key joins with its first reading and gives the verdicts of a stream of its own, to rounding:
    the keys of a call are judged together, and where a row stands in a batch may change the last
    bit of a forecast. The same calls give the same bits. A pool is not to be shared by threads.

    Parameters
    ----------
    model : DetectorModel
        The loaded detector.
    expire_after : int, timedelta or None, default=None
        When a key that no longer comes is forgotten, as in `xlstm_ts.streaming.StreamPool`.

    Attributes
    ----------
    expired : list
        The keys that the last step forgot, those that came with it and began anew among them.
    filled : dict of int
        By key, stamps that were left out before the last reading, and taken as missing ones. Keys
        without such stamps are not in it.

    Examples
    --------
    >>> pool = DetectorPool(DetectorModel("detector.onnx"))  # doctest: +SKIP
    >>> pool.step({"pump 1": [20.5, 3.1], "pump 2": [21.0, 2.9]})["pump 1"].alarm  # doctest: +SKIP
    False
    """

    def __init__(
        self, model: DetectorModel, *, expire_after: int | timedelta | None = None
    ) -> None:
        contract = model.contract
        self.expired: list[Key] = []
        self.filled: dict[Any, int] = {}
        self._model, self._graph = model, model.model.contract
        self._reader = InputReader(contract, StreamColumns(contract))
        self._expiry, self._steps = Expiry(expire_after), Steps(self._graph)
        self._slots, self._sensors = self._no_slots()
        self._places: dict[Key, int] = {}

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        """Return whether there is a stream of this key."""
        return key in self._places

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys, in the order in which they joined."""
        return iter(self._places)

    def __getitem__(self, key: object) -> Sensor:
        """Return what there is of a key: to change its budget, or to acknowledge its event.

        Raises
        ------
        StreamError
            Where there is none.
        """
        self._place(key)
        return Sensor(self, plain_key(key))

    def step(
        self,
        readings: Mapping[Any, ArrayLike],
        *,
        time: Times | Mapping[Any, Times] | None = None,
    ) -> dict[Any, Verdict]:
        """Take one reading of each key that has one, and judge it.

        Parameters
        ----------
        readings : mapping
            By key, a reading as `DetectorStream.step` takes it. Keys are texts, integers, or tuples
            of these. A key that is left out stays as it is.
        time : str, datetime or datetime64, or mapping, optional
            The time of all these readings, or by key that of each. Also needed where keys expire by
            time.

        Returns
        -------
        dict of Verdict
            By key, in the order of `readings`.

        Raises
        ------
        StreamError
            Where a reading or its time cannot be used. The message names the key; the whole pool is
            as before, so leave that reading out and call again.
        """
        values, _, moments = self._reader.read(
            readings, covariates=None, future=None, time=time, last=self._last
        )
        if self._expiry.is_by_time and time is None:
            raise StreamError("`time` is missing: keys of this pool expire by it.")
        due = self._expiry.look(self._slots.heard, self._find(readings), moments)
        plain = [plain_key(key) for key in readings]
        # Nothing can be refused from here on.
        stale = set(due.stale.tolist())
        self.expired = [key for key, place in self._places.items() if place in stale]
        for key in self.expired:
            self.drop(key)
        for key in plain:
            if key not in self._places:
                self._join(key)
        places = self._find(readings)
        self.filled = self._fill_gaps([*readings], places, moments)
        self._slots.tell(places, moments)
        self._expiry.commit(self._slots.heard, places, moments, clock=due.clock)
        return dict(zip(readings, self._judge(places, values), strict=True))

    def drop(self, key: object) -> None:
        """Forget a key; should it come again, it joins as a new one."""
        self._slots.leave(self._place(key))
        del self._places[plain_key(key)]

    def snapshot(self, path: Place, *, offset: Any = None) -> None:
        """Write all streams to one file, whole or not at all, as `StreamPool.snapshot` does."""
        places, heard = np.array([*self._places.values()], np.int64), self._slots.heard
        content = {
            "keys": [*self._places],
            "alphas": [self._sensors.alphas[place] for place in places.tolist()],
            "calls": self._expiry.calls,
            **{name: getattr(self._slots, name)[places].tolist() for name in FIELDS},
            **{name: getattr(heard, name)[places].tolist() for name in HEARD},
        }
        names = [described.name for described in self._graph.state]
        state = dict(zip(names, self._slots.bank.gather(places), strict=True))
        arrays = {f"{MODEL}{name}": array for name, array in state.items()}
        arrays |= {f"{HOST}{name}": rows for name, rows in self._sensors.kept(places).items()}
        snapshot = Snapshot(offset, content, arrays)
        write_snapshot(path, snapshot, contract=self._graph, kind="pool of detectors")

    def restore(self, path: Place) -> Any:
        """Go on from a snapshot in place of what is here, to the bit; return its offset.

        Raises
        ------
        StreamError
            Where the file is damaged, or of another model; the pool is then as before.
        FileNotFoundError
            Where there is no file.
        """
        offset, content, arrays = read_snapshot(
            path, contract=self._graph, kind="pool of detectors"
        )
        other = DetectorPool(self._model)
        with content_of("The snapshot", kind="snapshot of a pool", error=StreamError):
            calls = int(content["calls"])
            for key in content["keys"]:
                other._join(plain_key(key_from_json(key)))
            places = np.array([*other._places.values()], np.int64)
            slots, sensors = other._slots, other._sensors
            for holder, names in ((slots, FIELDS), (slots.heard, HEARD)):
                for name in names:
                    told = np.array(content[name], np.int64).reshape(len(places))
                    getattr(holder, name)[places] = told
            for place, alpha in zip(places.tolist(), content["alphas"], strict=True):
                sensors.alphas[place] = find_alpha(alpha=alpha)
            slots.bank.scatter(
                places, checked_state(_part(arrays, MODEL), self._graph, rows=len(places))
            )
            sensors.go_on(places, _part(arrays, HOST))
        self._expiry.calls = calls
        self._places, self._slots, self._sensors = other._places, slots, sensors
        self.expired, self.filled = [], {}
        return offset

    def _judge(self, places: Places, values: NDArray[np.float64]) -> list[Verdict]:
        """Judge a reading of each of these streams, a batch after the other."""
        verdicts: dict[int, Verdict] = {}
        bank, is_taken = self._slots.bank, self._slots.heard.is_taken
        for part in bank.parts(places):
            told, rows = places[part], bank.rows(places[part])

            def forecast(
                innovation: Innovation, told: Places = told, rows: Places = rows
            ) -> NDArray[np.float32]:
                bank.reading[rows], bank.now[rows] = innovation.seen, innovation.seen_value
                return bank.advance(told, is_taken)[:, 0]

            judged = self._sensors.step(told, values[part], forecast)
            verdicts |= dict(zip(part.tolist(), judged, strict=True))
        return [verdicts[one] for one in range(len(places))]

    def _fill_gaps(self, keys: list[Any], places: Places, moments: list[int]) -> dict[Any, int]:
        """Step the stamps that keys left out before readings, one of each at once."""
        last, untold = (array[places].tolist() for array in (self._slots.last, self._slots.untold))
        counts = [*map(self._steps.left_out, moments, last, untold)]  # none where no time was told
        most = self._model.longest_memory
        for taken in range(min(max(counts, default=0), most)):
            rows = places[np.array(counts) > taken]
            self._judge(rows, np.full((len(rows), len(self._model.channels)), np.nan))
        for place, count in zip(places.tolist(), counts, strict=False):
            if count > most:
                self._sensors.pass_over(place, count - most)
        return {key: count for key, count in zip(keys, counts, strict=False) if count}

    def _no_slots(self) -> tuple[Slots, Sensors]:
        model = self._model.model
        size = fitting_batch("auto", model)
        slots = empty_slots(model, StreamColumns(self._graph), batch_size=size)
        return slots, self._model.create_sensors(len(slots.last))

    def _join(self, key: Key) -> None:
        place = self._slots.take(np.empty(0, np.float32), call=self._expiry.calls)
        if self._sensors.capacity < len(self._slots.last):
            self._sensors.grow(len(self._slots.last))
        self._slots.reset(np.array([place]))
        self._sensors.begin(place, alpha=self._model.alpha)
        self._places[key] = place

    def _find(self, keys: Iterable[Any]) -> Places:
        """Return the places of keys, `NEW` of those that have none."""
        return np.array([self._places.get(key, NEW) for key in keys], np.int64)

    def _last(self, key: object) -> int:
        """Return the moment that the next reading of a key must be after."""
        return int(self._slots.last[self._place(key)]) if key in self else NEVER

    def _place(self, key: object) -> int:
        if key not in self._places:
            raise StreamError(f"The pool has no key {key!r}.")
        return self._places[plain_key(key)]


class Sensor:
    """One key of a pool of detectors: its budget and its events.

    Parameters
    ----------
    pool : DetectorPool
        The pool.
    key : text, integer or tuple
        The key. Where it is gone, or comes again as a new one, so does this.
    """

    def __init__(self, pool: DetectorPool, key: Key) -> None:
        self._pool, self._key = pool, key

    @property
    def alpha(self) -> float:
        """Share of its readings that may be in alarm."""
        return self._pool._sensors.alphas[self._pool._place(self._key)]

    def set_budget(
        self,
        *,
        alarms_per_day: float | None = None,
        alpha: float | None = None,
        contamination: Contamination | None = None,
    ) -> None:
        """Change the budget of this key alone, as in `XLSTMAnomalyDetector`."""
        self._pool._sensors.alphas[self._pool._place(self._key)] = find_alpha(
            alarms_per_day=alarms_per_day,
            alpha=alpha,
            contamination=contamination,
            seconds=self._pool._model.seconds,
        )

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        self._pool._sensors.acknowledge(self._pool._place(self._key))


def _part(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {one[len(name) :]: array for one, array in arrays.items() if one.startswith(name)}
