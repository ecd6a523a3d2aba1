"""Memory of a pool: a slot for what each stream keeps, and buffers for those that run at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.export.contract import COVARIATES, FORECAST, FUTURE, READING, Contract, next_name
from xlstm_ts.streaming.columns import StreamColumns
from xlstm_ts.streaming.expiry import Heard
from xlstm_ts.streaming.sessions import bind, tensor
from xlstm_ts.streaming.states import forecast_shape, initial_state
from xlstm_ts.streaming.times import NEVER

Array = NDArray[np.float32]
FEW = 16  # slots to begin with


class Slots:
    """What streams keep between readings, each in a row; rows of those that left are used again.

    Parameters
    ----------
    contract : Contract
        That of the model.
    statics : int
        Static columns of a stream.

    Attributes
    ----------
    state : list of ndarray, shape (capacity, numbers of the array)
        The arrays of the state, in the order of the contract.
    static : ndarray, shape (capacity, statics)
        The static columns.
    last : ndarray of int64, shape (capacity,)
        The moment that the next reading must be after.
    untold : ndarray of int64, shape (capacity,)
        Readings since then that told no time.
    heard : Heard
        Which slots are taken, and when their streams were heard.
    """

    def __init__(self, contract: Contract, *, statics: int) -> None:
        self._initial = [array.reshape(-1) for array in initial_state(contract)]
        self.state = [np.empty((FEW, array.size), np.float32) for array in self._initial]
        self.static = np.empty((FEW, statics), np.float32)
        self.last, self.untold = np.full(FEW, NEVER), np.zeros(FEW, np.int64)
        self.heard = Heard.nobody(FEW)
        self._free = [*reversed(range(FEW))]

    def take(self, static: Array, *, call: int) -> int:
        """Return a slot for a stream that has seen nothing and joins with a call."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.static[slot] = static
        self.heard.take(slot, call=call)
        self.reset(slot)
        return slot

    def leave(self, slot: int) -> None:
        """Let another stream have the slot."""
        self.heard.leave(slot)
        self._free.append(slot)

    def reset(self, slot: int) -> None:
        """Forget all readings of a stream."""
        self.fill(slot, self._initial)

    def fill(self, slot: int, state: list[Array]) -> None:
        """Set the state of a stream, which knows no time then."""
        for array, values in zip(self.state, state, strict=True):
            array[slot] = values.reshape(-1)
        self.last[slot], self.untold[slot] = NEVER, 0

    def tell(self, places: NDArray[np.int64], moments: list[int]) -> None:
        """Note the times of readings that come now; none where none was told."""
        if moments:
            self.last[places], self.untold[places] = moments, 0
        else:
            self.untold[places] += 1

    def _grow(self) -> None:
        before = len(self.last)
        self.state = [_doubled(array) for array in self.state]
        self.static = _doubled(self.static)
        self.last, self.untold = _doubled(self.last), _doubled(self.untold)
        self.heard = self.heard.doubled()
        self._free += reversed(range(before, 2 * before))


class _Bound(NamedTuple):
    """The graph bound to the first rows of the buffers, and the states in these, a row a stream."""

    binding: Any
    given: list[Array]
    new: list[Array]


class Batch:
    """Buffers in which the graph advances many streams at once.

    One set of buffers serves every count of streams up to `size`: the graph is bound to their
    first rows when a count first comes, and never again.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The graph.
    contract : Contract
        What it says of itself.
    columns : StreamColumns
        Its covariates.
    size : int
        Streams at once, at most.

    Attributes
    ----------
    reading, now, ahead : ndarray of float32, shape (size, ...)
        The inputs of the graph that are no state.
    """

    def __init__(
        self, session: Any, contract: Contract, columns: StreamColumns, *, size: int
    ) -> None:
        self._session, self._contract = session, contract
        self.reading = np.empty((size, len(contract.channels)), np.float32)
        self.now, self.ahead = columns.empty(size)
        self._forecast = np.empty((size, *forecast_shape(contract)), np.float32)
        # onnxruntime works in the memory of these arrays, so they must stay alive.
        shapes = [(size * one.shape[0], *one.shape[1:]) for one in contract.state]
        self._given = [np.empty(shape, np.float32) for shape in shapes]
        self._new = [np.empty(shape, np.float32) for shape in shapes]
        self._bound: dict[int, _Bound] = {}

    def advance(self, slots: Slots, places: NDArray[np.int64]) -> Array:
        """Advance the streams at these slots by the first rows of the inputs.

        Returns
        -------
        ndarray of float32, shape (streams, horizon, channels, levels)
            Their forecasts, until the next call.
        """
        count = len(places)
        bound = self._bound.get(count) or self._bind(count)
        for rows, array in zip(bound.given, slots.state, strict=True):
            # Places are valid; in its default mode `take` would go by a buffer of its own.
            np.take(array, places, axis=0, out=rows, mode="clip")
        self._session.run_with_iobinding(bound.binding)
        for rows, array in zip(bound.new, slots.state, strict=True):
            array[places] = rows
        return self._forecast[:count]

    def _bind(self, count: int) -> _Bound:
        beside = {READING: self.reading, COVARIATES: self.now, FUTURE: self.ahead}
        inputs = {name: tensor(beside[name][:count]) for name in self._contract.inputs}
        outputs = {FORECAST: tensor(self._forecast[:count])}
        rows: tuple[list[Array], list[Array]] = ([], [])
        pairs = zip(self._given, self._new, strict=True)
        for described, pair in zip(self._contract.state, pairs, strict=True):
            given, new = (array[: count * described.shape[0]] for array in pair)
            inputs[described.name] = tensor(given)
            outputs[next_name(described.name)] = tensor(new)
            for each, array in zip(rows, (given, new), strict=True):
                each.append(array.reshape(count, math.prod(described.shape)))
        binding = bind(self._session, inputs=inputs, outputs=outputs)
        self._bound[count] = _Bound(binding, *rows)
        return self._bound[count]


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((array, np.full_like(array, NEVER)))
