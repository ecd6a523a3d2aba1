"""Pools of detectors: a verdict for each of thousands of sensors, by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.exceptions import StreamError
from xlstm_ts.files import content_of
from xlstm_ts.streaming.columns import StreamColumns
from xlstm_ts.streaming.detectors import DetectorModel, DetectorStream, Kept
from xlstm_ts.streaming.expiry import NEW, Expiry, Heard
from xlstm_ts.streaming.inputs import InputReader, Times
from xlstm_ts.streaming.keys import Key, key_from_json, plain_key
from xlstm_ts.streaming.snapshots import Place, Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.times import NEVER

FEW = 16  # places to begin with


class DetectorPool:
    """Streams of one detector by key: a call takes one reading of some of them and judges those.

    A key joins with its first reading and gives the verdicts of a stream of its own, to the bit. A
    pool is not to be shared by threads.

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
        self._expiry, self._heard = Expiry(expire_after), Heard.nobody(FEW)
        self._free = [*reversed(range(FEW))]
        self._places: dict[Key, int] = {}
        self._streams: dict[Key, DetectorStream] = {}

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._streams)

    def __contains__(self, key: object) -> bool:
        """Return whether there is a stream of this key."""
        return key in self._streams

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys, in the order in which they joined."""
        return iter(self._streams)

    def __getitem__(self, key: object) -> DetectorStream:
        """Return the stream of a key: to change its budget, or to acknowledge its event.

        Raises
        ------
        StreamError
            Where there is none.
        """
        if key not in self._streams:
            raise StreamError(f"The pool has no key {key!r}.")
        return self._streams[plain_key(key)]

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
        due = self._expiry.look(self._heard, self._find(readings), moments)
        joining = [plain_key(key) for key in readings]
        # Nothing can be refused from here on.
        stale = set(due.stale.tolist())
        self.expired = [key for key, place in self._places.items() if place in stale]
        for key in self.expired:
            self.drop(key)
        for key in joining:
            if key not in self._streams:
                self._join(key)
        self._expiry.commit(self._heard, self._find(readings), moments, clock=due.clock)
        told: list[int | None] = [*moments] or [None] * len(values)
        verdicts = {}
        for key, one, moment in zip(readings, values, told, strict=True):
            verdicts[key] = self[key].advance(one.tolist(), moment)
        counts = {key: self[key].filled for key in readings}
        self.filled = {key: count for key, count in counts.items() if count}
        return verdicts

    def drop(self, key: object) -> None:
        """Forget a key; should it come again, it joins as a new one."""
        if key not in self._streams:
            raise StreamError(f"The pool has no key {key!r}.")
        plain = plain_key(key)
        del self._streams[plain]
        place = self._places.pop(plain)
        self._heard.leave(place)
        self._free.append(place)

    def snapshot(self, path: Place, *, offset: Any = None) -> None:
        """Write all streams to one file, whole or not at all, as `StreamPool.snapshot` does."""
        kept = [stream.kept() for stream in self._streams.values()]
        places = [*self._places.values()]
        content = {
            "keys": [*self._streams],
            "streams": [one.content for one in kept],
            "calls": self._expiry.calls,
            "call": self._heard.call[places].tolist(),
            "moment": self._heard.moment[places].tolist(),
        }
        names = kept[0].arrays if kept else {}
        arrays = {name: np.stack([one.arrays[name] for one in kept]) for name in names}
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
            for row, key in enumerate(content["keys"]):
                plain = plain_key(key_from_json(key))
                other._join(plain)
                rows = {name: array[row].copy() for name, array in arrays.items()}
                other[plain].go_on(Kept(content["streams"][row], rows))
            heard, places = other._heard, [*other._places.values()]
            for told, name in ((heard.call, "call"), (heard.moment, "moment")):
                told[places] = np.array(content[name], np.int64).reshape(len(places))
        self._expiry.calls = calls
        self._streams, self._places = other._streams, other._places
        self._heard, self._free = other._heard, other._free
        self.expired, self.filled = [], {}
        return offset

    def _join(self, key: Key) -> None:
        if not self._free:
            before = len(self._heard.call)
            self._heard = self._heard.doubled()
            self._free = [*reversed(range(before, 2 * before))]
        place = self._free.pop()
        self._heard.take(place, call=self._expiry.calls)
        self._places[key], self._streams[key] = place, self._model.create_stream()

    def _find(self, keys: Mapping[Any, Any]) -> NDArray[np.int64]:
        """Return the places of keys, `NEW` of those that have none."""
        return np.array([self._places.get(key, NEW) for key in keys], np.int64)

    def _last(self, key: object) -> int:
        """Return the moment that the next reading of a key must be after."""
        return self[key].last if key in self else NEVER
