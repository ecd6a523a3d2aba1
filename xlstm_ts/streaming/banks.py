"""Where the states of a pool lie: in the memory of the host, or on the device that runs the graph.

On the host a call gathers the states of its streams into a batch that fits the cache, and scatters
them again. On a device that way would cost more than the graph does: there states lie in blocks
that stay, and a block is advanced as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.export.contract import COVARIATES, FORECAST, FUTURE, READING, Contract, next_name
from xlstm_ts.streaming.columns import StreamColumns
from xlstm_ts.streaming.sessions import bind, device_of, tensor
from xlstm_ts.streaming.states import forecast_shape

Array = NDArray[np.float32]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Bank:
    """States of streams, a place for each, and the buffers through which they advance.

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
        The inputs of the graph that are no state, a row a stream.
    """

    def __init__(
        self, session: Any, contract: Contract, columns: StreamColumns, *, size: int
    ) -> None:
        self._session, self._contract, self._size = session, contract, size
        self.reading = np.full((size, len(contract.channels)), np.nan, np.float32)
        self.now, self.ahead = columns.empty(size)
        self._forecast = np.empty((size, *forecast_shape(contract)), np.float32)
        self._numbers = [math.prod(one.shape) for one in contract.state]

    def grow(self, capacity: int) -> None:
        """Make room for so many streams; what is in it is not set."""
        raise NotImplementedError

    def gather(self, places: Places) -> list[Array]:
        """Return a copy of states, `(places, numbers)` of each array in order of the contract."""
        raise NotImplementedError

    def scatter(self, places: Places, state: Sequence[Array]) -> None:
        """Set states, as `gather` gives them; one row stands for all places."""
        raise NotImplementedError

    def parts(self, places: Places) -> Iterable[Places]:
        """Return which of these streams advance together, as indices into `places`."""
        raise NotImplementedError

    def rows(self, places: Places) -> Places:
        """Return the rows of the inputs that belong to the streams of a part."""
        raise NotImplementedError

    def advance(self, places: Places, is_taken: Mask) -> Array:
        """Advance the streams of a part by their rows of the inputs; others stay as they are.

        Parameters
        ----------
        places : ndarray of int64
            The part.
        is_taken : ndarray of bool, shape (capacity,)
            Which places hold a stream.

        Returns
        -------
        ndarray of float32, shape (streams, horizon, channels, levels)
            Their forecasts, until the next call.
        """
        raise NotImplementedError

    def _bind(self, count: int, given: Sequence[Any], new: Sequence[Any]) -> Any:
        """Bind the first rows of the inputs and of the forecast, and tensors of a state."""
        beside = {READING: self.reading, COVARIATES: self.now, FUTURE: self.ahead}
        inputs = {name: tensor(beside[name][:count]) for name in self._contract.inputs}
        outputs = {FORECAST: tensor(self._forecast[:count])}
        for described, before, after in zip(self._contract.state, given, new, strict=True):
            inputs[described.name], outputs[next_name(described.name)] = before, after
        return bind(self._session, inputs=inputs, outputs=outputs)


class _Bound(NamedTuple):
    """The graph bound to the first rows of the buffers, and the states in these, a row a stream."""

    binding: Any
    given: list[Array]
    new: list[Array]


class HostBank(Bank):
    """States in the memory of the host, gathered into a batch for each run.

    One set of buffers serves every count of streams up to `size`: the graph is bound to their first
    rows when a count first comes, and never again.
    """

    def __init__(
        self, session: Any, contract: Contract, columns: StreamColumns, *, size: int
    ) -> None:
        super().__init__(session, contract, columns, size=size)
        self._state = [np.empty((0, numbers), np.float32) for numbers in self._numbers]
        # onnxruntime works in the memory of these arrays, so they must stay alive.
        shapes = [(size * one.shape[0], *one.shape[1:]) for one in contract.state]
        self._given = [np.empty(shape, np.float32) for shape in shapes]
        self._new = [np.empty(shape, np.float32) for shape in shapes]
        self._bound: dict[int, _Bound] = {}

    def grow(self, capacity: int) -> None:
        """Make room for so many streams, as `Bank.grow`."""
        more = capacity - len(self._state[0])
        self._state = [np.pad(array, ((0, more), (0, 0))) for array in self._state]

    def gather(self, places: Places) -> list[Array]:
        """Return states, as `Bank.gather`."""
        return [array[places] for array in self._state]

    def scatter(self, places: Places, state: Sequence[Array]) -> None:
        """Set states, as `Bank.scatter`."""
        for array, values in zip(self._state, state, strict=True):
            array[places] = values

    def parts(self, places: Places) -> Iterable[Places]:
        """Return batches one after the other, as `Bank.parts`."""
        order = np.arange(len(places))
        return [order[start : start + self._size] for start in range(0, len(order), self._size)]

    def rows(self, places: Places) -> Places:
        """Return the first rows, as `Bank.rows`."""
        return np.arange(len(places))

    def advance(self, places: Places, is_taken: Mask) -> Array:
        """Gather, run and scatter, as `Bank.advance`."""
        count = len(places)
        bound = self._bound.get(count) or self._bind_rows(count)
        for rows, array in zip(bound.given, self._state, strict=True):
            # Places are valid; in its default mode `take` would go by a buffer of its own.
            np.take(array, places, axis=0, out=rows, mode="clip")
        self._session.run_with_iobinding(bound.binding)
        for rows, array in zip(bound.new, self._state, strict=True):
            array[places] = rows
        return self._forecast[:count]

    def _bind_rows(self, count: int) -> _Bound:
        state = self._contract.state
        given, new = (
            [array[: count * one.shape[0]] for one, array in zip(state, arrays, strict=True)]
            for arrays in (self._given, self._new)
        )
        binding = self._bind(count, [*map(tensor, given)], [*map(tensor, new)])
        rows = ([part.reshape(count, -1) for part in arrays] for arrays in (given, new))
        self._bound[count] = _Bound(binding, *rows)
        return self._bound[count]


class DeviceBank(Bank):
    """States in blocks of `size` places on a device, each with a copy that the graph fills in turn.

    A block whose streams all come is advanced without a state leaving the device. Where some do not
    come, theirs are put back by way of the host, which costs what a gather would: so readings are
    best brought together for all streams of a pool. It has not been run on a device yet.
    """

    def __init__(
        self, session: Any, contract: Contract, columns: StreamColumns, *, size: int
    ) -> None:
        super().__init__(session, contract, columns, size=size)
        self._device = device_of(session)
        self._blocks: list[tuple[list[Any], list[Any]]] = []

    def grow(self, capacity: int) -> None:
        """Make room for so many streams by whole blocks, as `Bank.grow`."""
        while len(self._blocks) * self._size < capacity:
            self._blocks.append((self._empty(), self._empty()))

    def gather(self, places: Places) -> list[Array]:
        """Return states, as `Bank.gather`."""
        state = [np.empty((len(places), numbers), np.float32) for numbers in self._numbers]
        for part in self.parts(places):
            block, rows = self._block(places[part]), self.rows(places[part])
            for array, value in zip(state, self._blocks[block][0], strict=True):
                array[part] = self._read(value)[rows]
        return state

    def scatter(self, places: Places, state: Sequence[Array]) -> None:
        """Set states, as `Bank.scatter`."""
        for part in self.parts(places):
            block, rows = self._block(places[part]), self.rows(places[part])
            for values, value in zip(state, self._blocks[block][0], strict=True):
                array = self._read(value)
                array[rows] = np.broadcast_to(values, (len(places), values.shape[-1]))[part]
                self._write(value, array)

    def parts(self, places: Places) -> Iterable[Places]:
        """Return what lies in one block, as `Bank.parts`."""
        blocks = places // self._size
        return [np.flatnonzero(blocks == block) for block in np.unique(blocks)]

    def rows(self, places: Places) -> Places:
        """Return the rows in the block, as `Bank.rows`."""
        return places % self._size

    def advance(self, places: Places, is_taken: Mask) -> Array:
        """Run a whole block, and put back what was not to change, as `Bank.advance`."""
        block, rows = self._block(places), self.rows(places)
        given, new = self._blocks[block]
        first = block * self._size
        others = np.count_nonzero(is_taken[first : first + self._size]) > len(places)
        before = [self._read(value) for value in given] if others else []
        # What is bound for another device is copied when it is bound, and not again.
        self._session.run_with_iobinding(self._bind(self._size, given, new))
        self._blocks[block] = new, given
        for array, value in zip(before, new if others else [], strict=True):
            array[rows] = self._read(value)[rows]
            self._write(value, array)
        return self._forecast[rows]

    def _empty(self) -> list[Any]:
        shapes = [(self._size * one.shape[0], *one.shape[1:]) for one in self._contract.state]
        return [tensor(np.zeros(shape, np.float32), self._device) for shape in shapes]

    def _block(self, places: Places) -> int:
        return int(places[0]) // self._size

    def _read(self, value: Any) -> Array:
        """Return a copy of a tensor, a row a stream."""
        array: Array = np.array(value.numpy()).reshape(self._size, -1)
        return array

    def _write(self, value: Any, rows: Array) -> None:
        value.update_inplace(rows.reshape(value.shape()))
