"""Streams over a step graph: one reading in, one forecast out. Needs numpy and onnxruntime only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import BackendError, StreamError
from xlstm_ts.export.contract import (
    COVARIATES,
    FORECAST,
    FUTURE,
    METADATA_KEY,
    READING,
    Contract,
    next_name,
)
from xlstm_ts.stream_columns import StreamColumns, Time, Values

try:
    import onnxruntime as ort
except ImportError as err:
    raise BackendError(
        "Streams need onnxruntime: install xlstm-ts[onnx] for CPUs or xlstm-ts[onnx-gpu] for CUDA, "
        "never both, because the two packages overwrite each other's files."
    ) from err

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
    threads : int, default=1
        Threads inside one step. More cost more than they bring at the size of one reading.

    Attributes
    ----------
    contract : Contract
        Names of the channels, horizon, quantile levels, layout of the state, versions.

    Raises
    ------
    StreamError
        Where the file is not a step graph of a version that this library reads.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no step graph {os.fspath(path)!r}.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        try:
            self.session = ort.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
            metadata = self.session.get_modelmeta().custom_metadata_map
            self.contract = Contract.from_json(metadata[METADATA_KEY])
            self._check_graph()
        except Exception as err:  # onnxruntime's errors share no other base
            raise StreamError(f"{os.fspath(path)} is not a step graph of xlstm-ts: {err}") from err

    def _check_graph(self) -> None:
        """Check that the graph has the inputs and outputs that its contract speaks of."""
        names = [described.name for described in self.contract.state]
        for values, expected in (
            (self.session.get_inputs(), [*self.contract.inputs, *names]),
            (self.session.get_outputs(), [FORECAST, *map(next_name, names)]),
        ):
            if [value.name for value in values] != expected:
                raise ValueError("its inputs or outputs are not those of its contract")

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

    def _run(self) -> StreamOutput:
        self._session.run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current
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
