"""Pools: thousands of streams of one model, by key, advanced in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.files import content_of
from xlstm_ts.streaming.banks import Places
from xlstm_ts.streaming.columns import Beside, StreamColumns, Values
from xlstm_ts.streaming.expiry import NEW, Expiry
from xlstm_ts.streaming.gaps import Recurrence, Steps
from xlstm_ts.streaming.inputs import InputReader, Inputs, Times, naming
from xlstm_ts.streaming.keys import Key, key_from_json, plain_key
from xlstm_ts.streaming.models import StreamModel
from xlstm_ts.streaming.outputs import Filled, StreamOutput
from xlstm_ts.streaming.readings import Domain
from xlstm_ts.streaming.slots import Slots, empty_slots, fitting_batch
from xlstm_ts.streaming.snapshots import Place, Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.states import checked_state
from xlstm_ts.streaming.times import NEVER, Told

Array = NDArray[np.float32]


class StreamPool:
    """Streams of one model by key: a call takes one reading of some of them and forecasts those.

    A key joins with its first reading. Its forecasts are those of a stream of its own to the
    rounding of float32: where a row stands in a batch may change the last bit. The same calls give
    the same bits, in one process or with a snapshot between them. A pool is not to be shared by
    threads.

    Parameters
    ----------
    model : StreamModel
        The loaded graph.
    batch_size : int or "auto", default="auto"
        Streams that are advanced at once, at most. "auto" is as many as have their states in 1 MiB,
        between 8 and 128; on a GPU 1024.
    expire_after : int, timedelta or None, default=None
        When a key that no longer comes is forgotten: where as many calls of `step` went by without
        it, or where its last reading is longer ago by the times that `step` is told. A key that
        comes back after that begins anew. The clock of the machine has no say, so that readings
        which are played again give the same again, and a single key that tells a wrong time has
        none over the others. None keeps all until `drop`.
    static : mapping, optional
        By key, what is static of it, where the model was trained with that; looked up when a key
        joins.

    Attributes
    ----------
    batch_size : int
        What "auto" stands for.
    expired : list
        The keys that the last step forgot, those that came with it and began anew among them.
    filled : dict of Filled
        By key, what the last step made of the stamps that were left out before a reading: how many
        there were, and what the last of them gave. Keys without such stamps are not in it.

    Notes
    -----
    Where keys expire by time, one that comes is judged by its own times. One that is silent is
    judged by the time that more than half of the readings of the call, and at least two keys of the
    pool, have reached. So a pool of which one key alone still comes keeps those that it last heard.

    Memory grows with the most keys there ever were at once, by doubling. A slot that a key left is
    taken by the next that comes.

    Examples
    --------
    >>> pool = StreamPool(StreamModel("model.onnx"), expire_after=1000)  # doctest: +SKIP
    >>> outputs = pool.step({"pump 1": 20.5, "pump 2": 21.0})  # doctest: +SKIP
    >>> outputs["pump 1"].forecast  # doctest: +SKIP
    """

    def __init__(
        self,
        model: StreamModel,
        *,
        batch_size: int | Literal["auto"] = "auto",
        expire_after: int | timedelta | None = None,
        static: Mapping[Any, Mapping[str, Any]] | None = None,
    ) -> None:
        contract = model.contract
        self._model, self.batch_size = model, fitting_batch(batch_size, model)
        self.expired: list[Key] = []
        self.filled: dict[Any, Filled] = {}
        self._expiry = Expiry(expire_after)
        self._statics: Mapping[Any, Mapping[str, Any]] = {} if static is None else static
        self._contract, self._columns = contract, StreamColumns(contract)
        self._reader, self._domain = InputReader(contract, self._columns), Domain(contract)
        self._steps = Steps(contract)
        self._slots = self._no_slots()
        self._places: dict[Key, int] = {}

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        """Return whether there is a state of this key."""
        return key in self._places

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys, in the order in which they joined."""
        return iter(self._places)

    def step(
        self,
        readings: Mapping[Any, ArrayLike],
        *,
        covariates: Mapping[Any, Values] | None = None,
        future: Mapping[Any, Values] | None = None,
        time: Times | Mapping[Any, Times] | None = None,
    ) -> dict[Any, StreamOutput]:
        """Take one reading of each key that has one, and forecast the next ones of these.

        Parameters
        ----------
        readings : mapping
            By key, a reading as `Stream.step` takes it. Keys are texts, integers, or tuples of
            these. A key that is left out stays as it is.
        covariates, future : mapping, optional
            By key, what `Stream.step` takes beside a reading.
        time : str, datetime or datetime64, or mapping, optional
            The time of all these readings, or by key that of each. Also needed where keys expire
            by time. Stamps that a key left out are missing readings, as for `Stream.step`.

        Returns
        -------
        dict
            By key, in the order of `readings`: fresh arrays that later steps leave alone.

        Raises
        ------
        StreamError
            Where a reading, or what goes with it, cannot be used. The message names the key; the
            whole pool is as before, so leave that reading out and call again.

        Warns
        -----
        SeriesWarning
            Once, where a reading has no logarithm and the model takes that: it is missing then.
        """
        inputs = self._reader.read(
            readings, covariates=covariates, future=future, time=time, last=self._last
        )
        self._domain.check(inputs.values, keys=[*readings])
        if self._expiry.is_by_time and time is None:
            raise StreamError("`time` is missing: keys of this pool expire by it.")
        due = self._expiry.look(self._slots.heard, self._find(readings), inputs.moments)
        stale = self._keys(due.stale)
        joining = {
            plain_key(key): self._static(key)
            for key in readings
            if key not in self._places or key in stale
        }
        # Nothing can be refused from here on.
        self.expired = [*stale]
        for key in stale:
            self.drop(key)
        for key, static in joining.items():
            self._places[key] = self._slots.take(static, call=self._expiry.calls)
        if joining:
            self._slots.reset(self._find(joining))
        places = self._find(readings)
        self.filled = self._fill_gaps([*readings], places, inputs.moments)
        self._slots.tell(places, inputs.moments)
        self._expiry.commit(self._slots.heard, places, inputs.moments, clock=due.clock)
        return dict(zip(readings, self._advance(places, inputs), strict=True))

    def state(self, key: object) -> dict[str, Array]:
        """Return a copy of the state of a key, as `Stream.state` has it."""
        state = self._slots.bank.gather(np.array([self._place(key)]))
        return {
            described.name: array.reshape(described.shape)
            for described, array in zip(self._contract.state, state, strict=True)
        }

    def set_state(self, key: object, state: Mapping[str, ArrayLike]) -> None:
        """Let a key, there or not, go on from a state of a stream, such as one that was warmed up.

        Raises
        ------
        StreamError
            Where the state is not one of the model; nothing is then changed.
        """
        checked = checked_state(state, self._contract)
        if key not in self._places:
            plain, static = plain_key(key), self._static(key)
            self._places[plain] = self._slots.take(static, call=self._expiry.calls)
        place = self._place(key)
        self._slots.fill(np.array([place]), [array.reshape(1, -1) for array in checked])
        self._slots.heard.take(place, call=self._expiry.calls)

    def reset(self, key: object) -> None:
        """Forget the readings of a key: its next one is the first."""
        self._slots.reset(np.array([self._place(key)]))

    def drop(self, key: object) -> None:
        """Forget a key; should it come again, it joins as a new one."""
        self._slots.leave(self._place(key))
        del self._places[plain_key(key)]

    def snapshot(self, path: Place, *, offset: Any = None) -> None:
        """Write all states to one file, whole or not at all; the module `snapshots` says when.

        Parameters
        ----------
        path : path-like or binary file
            Where to; a file that is there is replaced, and what is open is written to.
        offset : optional
            How far the source was read, or whatever else a later process must know: any JSON
            value.

        Raises
        ------
        StreamError
            Where JSON cannot hold the offset.
        """
        content = {"keys": [*self._places], "calls": self._expiry.calls}
        places = np.array([*self._places.values()], np.int64)
        names = [described.name for described in self._contract.state]
        arrays = dict(zip(names, self._slots.bank.gather(places), strict=True))
        arrays |= {name: array[places] for name, array in _beside(self._slots).items()}
        snapshot = Snapshot(offset, content, arrays)
        write_snapshot(path, snapshot, contract=self._contract, kind="pool")

    def restore(self, path: Place) -> Any:
        """Go on from a snapshot in place of what is here, to the bit; return its offset.

        To the bit where `batch_size` is what it was, as it is by default. On a device keys may come
        to other rows of a block: to the bit there as far as it computes all rows alike.

        Raises
        ------
        StreamError
            Where the file is damaged, or of another model; the pool is then as before.
        FileNotFoundError
            Where there is no file.
        """
        offset, content, arrays = read_snapshot(path, contract=self._contract, kind="pool")
        with content_of("The snapshot", kind="snapshot of a pool", error=StreamError):
            slots, calls = self._no_slots(), int(content["calls"])
            keys = [plain_key(key_from_json(key)) for key in content["keys"]]
            nothing = np.zeros(self._columns.statics, np.float32)
            places = {key: slots.take(nothing, call=0) for key in keys}
            taken = np.array([*places.values()], np.int64)
            for name, array in _beside(slots).items():
                if arrays[name].shape != array[taken].shape:
                    raise ValueError(f"`{name}` is not of {len(taken)} keys")
                array[taken] = arrays.pop(name)
            state = checked_state(arrays, self._contract, rows=len(taken))
        slots.bank.scatter(taken, state)
        self._slots, self._places, self.expired, self.filled = slots, places, [], {}
        self._expiry.calls = calls
        return offset

    def _fill_gaps(self, keys: list[Any], places: Places, moments: list[int]) -> dict[Any, Filled]:
        """Step the stamps that keys left out before readings, one of each at once."""
        last, untold = (array[places].tolist() for array in (self._slots.last, self._slots.untold))
        counts = [*map(self._steps.left_out, moments, last, untold)]  # none where no time was told
        left = {row: count for row, count in enumerate(counts) if count}
        recurrences = {row: Recurrence() for row in left}
        filled = {}
        while left:
            rows = [*left]
            stamps = [self._steps.before(moments[row], left[row]) for row in rows]
            outputs = self._advance(places[rows], self._missing(stamps))
            states = zip(*self._slots.bank.gather(places[rows]), strict=True)
            for row, output, state in zip(rows, outputs, states, strict=True):
                left[row] = recurrences[row].left(left[row] - 1, [*state])
                if not left[row]:
                    del left[row]
                    filled[keys[row]] = Filled(counts[row], output)
        return filled

    def _missing(self, stamps: list[Told]) -> Inputs:
        """Return what goes into the graph at stamps that were left out, one a row."""
        values = np.full((len(stamps), len(self._contract.channels)), np.nan)
        has_columns = bool(self._contract.columns)
        columns = Beside.stack([*map(self._columns.missing, stamps)]) if has_columns else None
        return Inputs(values, columns, [])

    def _advance(self, places: Places, inputs: Inputs) -> list[StreamOutput]:
        """Run the graph over the streams at these places, a batch after the other."""
        outputs: dict[int, StreamOutput] = {}
        bank, is_taken = self._slots.bank, self._slots.heard.is_taken
        for part in bank.parts(places):
            told, rows = places[part], bank.rows(places[part])
            bank.reading[rows] = inputs.values[part]
            if inputs.columns is not None:
                self._lay(Beside(*(column[part] for column in inputs.columns)), told, rows)
            quantiles = bank.advance(told, is_taken)
            points = quantiles[..., self._contract.median]
            # Each its own: who keeps one does not keep those of the whole batch.
            for one, point, levels in zip(part.tolist(), points, quantiles, strict=True):
                outputs[one] = StreamOutput(point.copy(), levels.copy())
        return [outputs[one] for one in range(len(places))]

    def _lay(self, columns: Beside, places: Places, rows: Places) -> None:
        """Put what goes with the readings where the graph looks for it."""
        bank = self._slots.bank
        now, ahead = bank.now[rows], bank.ahead[rows]
        self._columns.lay_static(self._slots.static[places], now)
        self._columns.lay(columns, now, ahead)
        bank.now[rows], bank.ahead[rows] = now, ahead

    def _no_slots(self) -> Slots:
        return empty_slots(self._model, self._columns, batch_size=self.batch_size)

    def _find(self, keys: Iterable[Any]) -> Places:
        """Return the places of keys, `NEW` of those that have none."""
        return np.array([self._places.get(key, NEW) for key in keys], np.int64)

    def _keys(self, places: Places) -> dict[Key, int]:
        """Return the keys at these places, in the order in which they joined."""
        if not places.size:
            return {}
        wanted = set(places.tolist())
        return {key: place for key, place in self._places.items() if place in wanted}

    def _last(self, key: object) -> int:
        """Return the moment that the next reading of a key must be after."""
        place = self._places.get(key)  # type: ignore[call-overload]  # any key may be asked for
        return NEVER if place is None else int(self._slots.last[place])

    def _place(self, key: object) -> int:
        if key not in self._places:
            raise StreamError(f"The pool has no key {key!r}.")
        return self._places[plain_key(key)]

    def _static(self, key: object) -> Array:
        with naming(key):
            return self._columns.read_static(self._statics.get(key))


def _beside(slots: Slots) -> dict[str, NDArray[Any]]:
    """Return by name what a snapshot keeps of each slot beside its state."""
    heard = {"call": slots.heard.call, "moment": slots.heard.moment}
    return {"static": slots.static, "last": slots.last, "untold": slots.untold, **heard}
