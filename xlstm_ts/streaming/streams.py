"""Streams over a step graph: one reading in, one forecast out. Needs numpy and onnxruntime only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import COVARIATES, DETECTOR_KEY, FORECAST, FUTURE, READING, next_name
from xlstm_ts.streaming.columns import StreamColumns, Values
from xlstm_ts.streaming.readings import LARGEST, read_history, read_reading
from xlstm_ts.streaming.sessions import CPU, bind, check_providers, device_of, open_graph, tensor
from xlstm_ts.streaming.snapshots import Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.states import checked_state, forecast_shape, initial_state
from xlstm_ts.streaming.times import NEVER, Time, moment_after, read_history_times, read_times
from xlstm_ts.streaming.warming import WarmUpGraph

Array = NDArray[np.float32]
STATIC = "static"  # in snapshots; no array of a state is called so


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
    providers : sequence of str or (str, options), default=("CPUExecutionProvider",)
        Providers of onnxruntime, the most wanted first; the CPU follows by itself. With
        "CUDAExecutionProvider" a stream keeps its state on the device (not tested on one).
    warm_up : path-like, optional
        The warm-up graph of the same weights: `Stream.warm_up` then takes many readings at once.
    threads : int, default=1
        Threads inside one step. More cost more than they bring at the size of one reading.

    Attributes
    ----------
    contract : Contract
        Names of the channels, horizon, quantile levels, layout of the state, versions.

    Raises
    ------
    StreamError
        Where a file is not such a graph of a version that this library reads, or the two are of
        different weights.

    Warns
    -----
    BackendWarning
        Where the first provider is not to be had: onnxruntime itself says nothing.
    """

    _is_inner = False  # whether something of ours stands before the graph

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warm_up: str | os.PathLike[str] | None = None,
        providers: Sequence[str | tuple[str, Any]] = (CPU,),
        threads: int = 1,
    ) -> None:
        check_providers(providers)
        check_integer("threads", threads, least=1)
        options: Any = {"providers": providers, "threads": threads}
        self.session, self.contract = open_graph(path, kind="step", **options)
        if not self._is_inner and DETECTOR_KEY in self.session.get_modelmeta().custom_metadata_map:
            raise StreamError(
                f"{os.fspath(path)} holds a detector, whose graph takes no raw readings: load it "
                "with xlstm_ts.streaming.detectors.DetectorModel."
            )
        self.warm_up_graph = (
            None if warm_up is None else WarmUpGraph(warm_up, self.contract, **options)
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
        contract = model.contract
        self._contract, self._columns = contract, StreamColumns(contract)
        self._warm_up = model.warm_up_graph
        self._static = self._columns.read_static(static)
        self._now, self._ahead = self._columns.empty(1)
        self._columns.lay_static(self._static, self._now)
        # onnxruntime works in the memory of these arrays, so the stream must keep them alive.
        self._reading = np.empty((1, len(contract.channels)), np.float32)
        self._forecast = np.empty((1, *forecast_shape(contract)), np.float32)
        self._arrays = (initial_state(contract), initial_state(contract))
        device = device_of(model.session)
        self._states = tuple([tensor(one, device) for one in arrays] for arrays in self._arrays)
        self._bindings = tuple(self._bind(model.session, *pair) for pair in ((0, 1), (1, 0)))
        # What a step looks up each time.
        self._channels, self._is_single = contract.channels, len(contract.channels) == 1
        self._has_columns = bool(contract.columns)
        self._run = model.session.run_with_iobinding
        self._told: Any = memoryview(self._reading[0])
        self._quantiles = self._forecast[0]
        self._point = self._quantiles[..., contract.median]
        self._current, self._last = 0, NEVER

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
            One value a channel in raw units, by name (a mapping, a row of a frame) or in the order
            of `contract.channels`; NaN is missing. A single channel may come as a plain number.
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
            the hours after it are off by one. A model without a calendar only looks whether it is
            after the time before.

        Returns
        -------
        StreamOutput
            Fresh arrays that later steps leave alone.

        Raises
        ------
        StreamError
            Where the reading has another number of channels or an infinity, what the model was
            trained with is missing beside it, or `time` is not after that of the reading before;
            the state is then as before.
        """
        # The plainest case stands first: after a run of the graph each call costs a microsecond.
        if type(reading) is float and self._is_single and not abs(reading) > LARGEST:
            self._told[0] = reading
        else:
            self._take(reading)
        is_alone = covariates is None and future is None and time is None
        if self._has_columns or not is_alone:
            self._take_beside(covariates, future, time)
        return self._advance()

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
        self._now[0], self._ahead[0] = now, ahead
        return self._advance()

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
            The times of the readings, `T` of them; the `horizon` ones after the last too where
            `step` needs those.

        Returns
        -------
        StreamOutput
            What the last of the readings gives.

        Raises
        ------
        StreamError
            As for `step`; the state is then as before all of the readings.
        """
        readings = read_history(history, self._channels)
        told, last = None, self._last
        if time is not None:
            told, last = read_history_times(
                time,
                len(readings),
                horizon=self._contract.horizon,
                zone=self._contract.zone,
                is_calendar=self._columns.is_calendar,
                last=last,
            )
        columns, beside = self._columns.read_history(len(readings), covariates, future, told)
        self._columns.lay_static(self._static, columns)
        self._columns.lay(beside, self._now[0], self._ahead[0])
        self._last = last
        return self.warm_up_columns(readings, columns, self._ahead[0])

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
        self._ahead[0] = ahead
        graph, start = self._warm_up, 0
        while graph is not None and start + graph.chunk <= len(readings):
            part, start = slice(start, start + graph.chunk), start + graph.chunk
            # On the CPU a tensor is our memory, elsewhere numpy() is a copy.
            state = [value.numpy() for value in self._states[self._current]]
            self._forecast[...], state = graph.run(
                readings[part], columns[part], self._ahead, state=state
            )
            self._fill(state, last=self._last)
        output = self._output()
        for reading, now in zip(readings[start:], columns[start:], strict=True):
            self._reading[0], self._now[0] = reading, now
            output = self._advance()
        return output

    def reset(self) -> None:
        """Forget everything: the next reading is the first."""
        self._fill(initial_state(self._contract), last=NEVER)

    def snapshot(self, path: str | os.PathLike[str], *, offset: Any = None) -> None:
        """Write the state to a file, whole or not at all; `xlstm_ts.streaming.snapshots` says when.

        Parameters
        ----------
        path : path-like
            Where to; a file that is there is replaced.
        offset : optional
            How far the source was read, or whatever else a later process must know: any JSON
            value.

        Raises
        ------
        StreamError
            Where JSON cannot hold the offset.
        """
        arrays = {**self.state, STATIC: self._static}
        snapshot = Snapshot(offset, {"last": self._last}, arrays)
        write_snapshot(path, snapshot, contract=self._contract, kind="stream")

    def restore(self, path: str | os.PathLike[str]) -> Any:
        """Go on from a snapshot, to the bit; return its offset.

        Raises
        ------
        StreamError
            Where the file is damaged, or of another model; the stream is then as before.
        FileNotFoundError
            Where there is no file.
        """
        offset, content, arrays = read_snapshot(path, contract=self._contract, kind="stream")
        self._static = arrays.pop(STATIC)
        self._columns.lay_static(self._static, self._now)
        self._fill([*arrays.values()], last=content["last"])
        return offset

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the state by name; set it to go on from a state taken before.

        It knows no time: after setting it any `time` may follow.

        Raises
        ------
        StreamError
            On setting, where names or shapes are not those of the model, or a number is not
            finite; nothing is then changed.
        """
        values = zip(self._contract.state, self._states[self._current], strict=True)
        # On the CPU a tensor is our memory, elsewhere numpy() is a copy already.
        return {described.name: value.numpy().copy() for described, value in values}

    @state.setter
    def state(self, state: Mapping[str, ArrayLike]) -> None:
        self._fill(checked_state(state, self._contract), last=NEVER)

    def _take_beside(
        self,
        covariates: Values | None,
        future: Values | None,
        time: Time | Sequence[Time] | None,
    ) -> None:
        """Put what goes with a reading where the graph looks for it."""
        if not self._has_columns and not (covariates is None and future is None):
            raise StreamError("The model was trained without covariates: give the reading alone.")
        zone, told, last = self._contract.zone, None, self._last
        if time is not None:
            told = read_times(time, zone=zone, is_calendar=self._columns.is_calendar)
            last = moment_after(told, last, zone=zone)
        beside = self._columns.read(covariates, future, told)
        self._columns.lay(beside, self._now[0], self._ahead[0])
        self._last = last

    def _take(self, reading: ArrayLike) -> None:
        """Put a reading where the graph looks for it."""
        for place, value in enumerate(read_reading(reading, self._channels)):
            self._told[place] = value

    def _advance(self) -> StreamOutput:
        self._run(self._bindings[self._current])
        self._current = 1 - self._current
        return self._output()

    def _output(self) -> StreamOutput:
        # What a run has put out of the caches is slow: two copies are faster than a copy and a
        # view, and the constructor of a named tuple is Python.
        return tuple.__new__(StreamOutput, (self._point.copy(), self._quantiles.copy()))

    def _fill(self, state: list[Array], *, last: int) -> None:
        for value, array in zip(self._states[self._current], state, strict=True):
            value.update_inplace(array)
        self._last = last

    def _bind(self, session: Any, source: int, target: int) -> Any:
        """Bind the graph once to read one copy of the state and write the other."""
        given = {READING: self._reading, COVARIATES: self._now, FUTURE: self._ahead}
        inputs = {name: tensor(given[name]) for name in self._contract.inputs}
        outputs = {FORECAST: tensor(self._forecast)}
        for place, described in enumerate(self._contract.state):
            inputs[described.name] = self._states[source][place]
            outputs[next_name(described.name)] = self._states[target][place]
        return bind(session, inputs=inputs, outputs=outputs)
