"""Streams over a step graph: one reading in, one forecast out. Needs numpy and onnxruntime only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import COVARIATES, FORECAST, FUTURE, READING, next_name
from xlstm_ts.sessions import open_graph, ort
from xlstm_ts.stream_columns import StreamColumns, Time, Values
from xlstm_ts.warming import WarmUpGraph, lay_out

Array = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


class StreamOutput(NamedTuple):
    """What one reading gives.

    Attributes
    ----------
    forecast : ndarray of float32, shape (horizon, channels)
        The point forecast of the next readings, in raw units: the level nearest to the median.
    quantiles : ndarray of float32, shape (horizon, channels, levels)
        All levels.
    """

    forecast: Array
    quantiles: Array


class StreamModel:
    """A loaded step graph: what all streams of one model share.

    Parameters
    ----------
    path : path-like
        A file that `xlstm_ts.export.onnx.export_onnx` wrote.
    warm_up : path-like, optional
        The warm-up graph of the same weights: `Stream.warm_up` then takes many readings at once.
    threads : int, default=1
        Threads inside one step. More cost more than they bring at the size of one reading.

    Attributes
    ----------
    contract : Contract
        Names of the channels, horizon, quantile levels, layout of the state, versions.
    warm_up : WarmUpGraph or None
        The warm-up graph.

    Raises
    ------
    StreamError
        Where a file is not such a graph of a version that this library reads, or the two are of
        different weights.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warm_up: str | os.PathLike[str] | None = None,
        threads: int = 1,
    ) -> None:
        self.session, self.contract = open_graph(path, threads=threads, kind="step")
        self.warm_up = (
            None if warm_up is None else WarmUpGraph(warm_up, self.contract, threads=threads)
        )

    def create_stream(self, *, static: Mapping[str, Any] | None = None) -> Stream:
        """Return a stream that has seen nothing; its state is its own.

        Parameters
        ----------
        static : mapping, optional
            What is static of the stream, by name, where the model was trained with that.
        """
        return Stream(self, static=static)


class Stream:
    """One sequence of readings and the state it has left behind.

    Streams of one model are cheap: each owns two copies of the state, which the graph fills in
    turn, so that nothing is copied between readings. A stream is not to be shared by threads.

    Parameters
    ----------
    model : StreamModel
        The loaded graph.
    static : mapping, optional
        What is static of the stream.
    """

    def __init__(self, model: StreamModel, *, static: Mapping[str, Any] | None = None) -> None:
        self._session, self._contract = model.session, model.contract
        self._warm_up = model.warm_up
        contract = model.contract
        self._median = contract.median
        shape = (1, contract.horizon, len(contract.channels), len(contract.quantiles))
        self._reading = np.empty((1, len(contract.channels)), np.float32)
        self._forecast = np.empty(shape, np.float32)
        self._columns = StreamColumns(contract, static)
        # onnxruntime works in the memory of these arrays, so the stream must keep them alive.
        self._states = tuple(
            [np.empty(array.shape, np.float32) for array in contract.state] for _ in range(2)
        )
        self._current = 0
        self._bindings = (self._bind(0, 1), self._bind(1, 0))
        self.reset()

    def step(
        self,
        reading: ArrayLike,
        covariates: Values | None = None,
        future: Values | None = None,
        *,
        time: Time | Sequence[Time] | None = None,
    ) -> StreamOutput:
        """Take one reading and forecast the next ones.

        Parameters
        ----------
        reading : array-like of float, shape (channels,)
            One value a channel in raw units, in the order of `contract.channels`; NaN is missing.
            A single channel may come as a plain number.
        covariates : array-like of float, shape (columns,), or mapping, optional
            The past and known columns at the time of the reading, in the order of
            `contract.columns` or by name; NaN is missing. Needed where the model has some.
        future : array-like of float, shape (horizon, known columns), or mapping, optional
            The known columns at the times of the next readings; NaN is missing.
        time : str, datetime or datetime64, optional
            The time of the reading, where the model goes by the calendar: as the clock on the wall
            shows it, or with a zone, from which it is converted to that of the fit. Of a step
            without fixed length (a month, a working day) the times of the reading and of all the
            next ones. Across a change of summer time within the horizon give these too, otherwise
            the hours after it are off by one.

        Returns
        -------
        StreamOutput
            Fresh arrays that later steps leave alone.

        Raises
        ------
        StreamError
            Where the reading has another number of channels or an infinity, or what the model was
            trained with is missing beside it; the state is then as before.
        """
        self._take(reading)
        if self._contract.columns:
            self._columns.take(covariates, future, time)
        elif covariates is not None or future is not None:
            raise StreamError("The model was trained without covariates: give the reading alone.")
        return self._run()

    def step_columns(self, reading: ArrayLike, now: ArrayLike, ahead: ArrayLike) -> StreamOutput:
        """Take one reading with its columns laid out as the graph reads them.

        Parameters
        ----------
        reading : array-like of float, shape (channels,)
            As for `step`.
        now, ahead : array-like of float, shapes (columns,) and (horizon, columns ahead)
            All of `contract.columns`, and those that are known for the next readings.
        """
        self._take(reading)
        self._columns.now[0], self._columns.ahead[0] = now, ahead
        return self._run()

    def warm_up(
        self,
        history: ArrayLike,
        covariates: Values | None = None,
        future: Values | None = None,
        *,
        time: Sequence[Time] | None = None,
    ) -> StreamOutput:
        """Take many readings; the stream then goes on as if it had stepped them all.

        With a warm-up graph (`StreamModel(path, warm_up=...)`) whole chunks of `chunk` readings go
        through that; the rest are stepped, and without one all are.

        Parameters
        ----------
        history : array-like of float, shape (T, channels)
            Readings, oldest first, each as for `step`; `(T,)` for a single channel.
        covariates : array-like of float, shape (T, columns), or mapping, optional
            The past and known columns at the times of the readings.
        future : array-like of float, shape (horizon, known columns), or mapping, optional
            The known columns at the times after the last of them.
        time : sequence of str, datetime or datetime64, optional
            The times of the readings, `T` of them, where the model goes by the calendar; the
            `horizon` ones after the last too where `step` needs those.

        Returns
        -------
        StreamOutput
            What the last of the readings gives.

        Raises
        ------
        StreamError
            As for `step`; the state is then as before all of the readings.
        """
        readings = lay_out(history, self._contract.channels)
        columns = self._columns.take_history(len(readings), covariates, future, time)
        return self.warm_up_columns(readings, columns, self._columns.ahead[0])

    def warm_up_columns(
        self, readings: NDArray[Any], columns: NDArray[Any], ahead: ArrayLike
    ) -> StreamOutput:
        """Take many readings with their columns laid out as the graph reads them.

        Parameters
        ----------
        readings, columns : ndarray of float, shapes (T, channels) and (T, columns)
            Readings, and all of `contract.columns` at their times.
        ahead : array-like of float, shape (horizon, columns ahead)
            Those that are known for the readings after the last.
        """
        self._columns.ahead[0] = ahead
        graph, start = self._warm_up, 0
        while graph is not None and start + graph.chunk <= len(readings):
            part, start = slice(start, start + graph.chunk), start + graph.chunk
            self._forecast[...] = graph.run(
                readings[part],
                columns[part],
                self._columns.ahead,
                state=self._states[self._current],
            )
        for reading, now in zip(readings[start:], columns[start:], strict=True):
            self._reading[0], self._columns.now[0] = reading, now
            self._advance()
        return self._output()

    def _run(self) -> StreamOutput:
        self._advance()
        return self._output()

    def _advance(self) -> None:
        self._session.run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current

    def _output(self) -> StreamOutput:
        quantiles = self._forecast[0].copy()
        return StreamOutput(quantiles[..., self._median], quantiles)

    def reset(self) -> None:
        """Forget everything: the next reading is the first."""
        self._current = 0
        for array, described in zip(self._states[0], self._contract.state, strict=True):
            array.flat[:] = described.initial  # one number, or all of them

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the state by name; set it to go on from a state taken before.

        Raises
        ------
        StreamError
            On setting, where names or shapes are not those of the model, or a number is not
            finite; nothing is then changed.
        """
        arrays = zip(self._contract.state, self._states[self._current], strict=True)
        return {described.name: array.copy() for described, array in arrays}

    @state.setter
    def state(self, state: Mapping[str, ArrayLike]) -> None:
        expected = {described.name: described.shape for described in self._contract.state}
        given = {name: np.asarray(array, np.float32) for name, array in state.items()}
        if given.keys() != expected.keys():
            wrong = sorted(given.keys() ^ expected.keys())
            raise StreamError(f"The state is of another model: it differs in {', '.join(wrong)}.")
        for name, shape in expected.items():
            if given[name].shape != shape:
                raise StreamError(
                    f"The state is of another model: `{name}` has shape {given[name].shape}, "
                    f"expected {shape}."
                )
            if not np.isfinite(given[name]).all():
                raise StreamError(f"`{name}` of the state holds numbers that are not finite.")
        for name, array in zip(expected, self._states[self._current], strict=True):
            array[...] = given[name]

    def _take(self, reading: ArrayLike) -> None:
        """Put a reading where the graph looks for it, after a look at it."""
        channels = self._contract.channels
        try:
            if isinstance(reading, np.ma.MaskedArray):
                reading = np.ma.filled(reading.astype(np.float64), np.nan)
            values = np.asarray(reading, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as err:
            raise StreamError(
                f"A reading has one number for each of {', '.join(channels)}, NaN where it is "
                f"missing; got {reading!r}."
            ) from err
        if values.size != len(channels) or values.ndim > 1:
            raise StreamError(
                f"A reading has shape ({len(channels)},), one value for each of "
                f"{', '.join(channels)}; got shape {values.shape}."
            )
        # This runs at every reading: a loop over few numbers is faster than calls of numpy.
        for value in values.ravel().tolist():
            if abs(value) > LARGEST:
                channel = channels[values.ravel().tolist().index(value)]
                raise StreamError(
                    f"The reading of {channel} is {value}, beyond float32; give NaN for a missing "
                    "reading."
                )
        self._reading[0] = values

    def _bind(self, source: int, target: int) -> Any:
        """Bind the graph once to read one copy of the state and write the other."""
        binding = self._session.io_binding()
        names = [described.name for described in self._contract.state]
        given = {READING: self._reading, COVARIATES: self._columns.now, FUTURE: self._columns.ahead}
        told = {name: given[name] for name in self._contract.inputs}
        for name, array in (told | dict(zip(names, self._states[source], strict=True))).items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        outputs = zip(
            [FORECAST, *map(next_name, names)], [self._forecast, *self._states[target]], strict=True
        )
        for name, array in outputs:
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        return binding
