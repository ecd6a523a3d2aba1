"""One stream over a step graph: one reading in, one forecast out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import COVARIATES, FORECAST, FUTURE, READING, next_name
from xlstm_ts.files import content_of
from xlstm_ts.streaming.columns import StreamColumns, Values
from xlstm_ts.streaming.gaps import Recurrence, Steps
from xlstm_ts.streaming.histories import read_history_times
from xlstm_ts.streaming.outputs import NOTHING, Filled, StreamOutput
from xlstm_ts.streaming.readings import LARGEST, Domain, read_history, read_reading
from xlstm_ts.streaming.sessions import bind, device_of, is_away, tensor
from xlstm_ts.streaming.snapshots import Place, Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.states import checked_state, forecast_shape, initial_state
from xlstm_ts.streaming.times import NEVER, Time, moment_after, read_times

if TYPE_CHECKING:
    from xlstm_ts.streaming.models import StreamModel

Array = NDArray[np.float32]
STATIC = "static"  # in snapshots; no array of a state is called so


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

    Attributes
    ----------
    filled : Filled
        What the last call made of the stamps that were left out before its reading: how many
        there were, and what the last of them gave.
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
        device, initial = device_of(model.session), (initial_state(contract) for _ in range(2))
        self._states = tuple([tensor(one, device) for one in arrays] for arrays in initial)
        self._session, self._is_away = model.session, is_away(model.session)
        self._bindings = [self._bind(model.session, *pair) for pair in ((0, 1), (1, 0))]
        # What a step looks up each time.
        self._channels, self._domain = contract.channels, Domain(contract)
        self._is_plain = len(contract.channels) == 1 and contract.transform is None
        self._has_columns = bool(contract.columns)
        self._run = model.session.run_with_iobinding
        self._told: Any = memoryview(self._reading[0])
        self._quantiles = self._forecast[0]
        self._point = self._quantiles[..., contract.median]
        self._steps, self.filled = Steps(contract), NOTHING
        self._current, self._last, self._untold = 0, NEVER, 0

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
            next ones. Stamps that are left out since the time before are
            taken as missing readings first, each to the nearest step; a reading without a time
            takes one stamp. Of a step without fixed length nothing is taken as left out.

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

        Warns
        -----
        SeriesWarning
            Once, where a reading has no logarithm and the model takes that: it is missing then.
        """
        # The plainest case stands first: after a run of the graph each call costs a microsecond.
        if type(reading) is float and self._is_plain and not abs(reading) > LARGEST:
            self._told[0] = reading
        else:
            self._take(reading)
            self._domain.check(self._reading)
        is_alone = covariates is None and future is None and time is None
        if self._has_columns or not is_alone:
            self._take_beside(covariates, future, time)
        else:
            self._untold += 1
            self.filled = NOTHING
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
            `step` needs those. Stamps that are left out are missing readings, as for `step`.

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
        self._domain.check(readings)
        told = read_history_times(
            time,
            len(readings),
            contract=self._contract,
            steps=self._steps,
            is_calendar=self._columns.is_calendar,
            last=self._last,
            untold=self._untold,
        )
        columns, beside = self._columns.read_history(told, covariates, future)
        if told.before:
            self._pass_over(told.first, told.before)
        self._columns.lay_static(self._static, columns)
        self._columns.lay(beside, self._now[0], self._ahead[0])
        self._last = told.last
        self._untold = 0 if time is not None else self._untold + len(readings)
        output = self.warm_up_columns(told.spread(readings), columns, self._ahead[0])
        self.filled = Filled(told.before + told.rows - len(readings), None)
        return output

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
            self._forecast[...], state = graph.run(
                readings[part], columns[part], self._ahead, state=self._views()
            )
            self._set(state, last=self._last, untold=self._untold)
        output = self._output()
        for reading, now in zip(readings[start:], columns[start:], strict=True):
            self._reading[0], self._now[0] = reading, now
            output = self._advance()
        return output

    def reset(self) -> None:
        """Forget everything: the next reading is the first."""
        self._set(initial_state(self._contract))

    def snapshot(self, path: Place, *, offset: Any = None) -> None:
        """Write the state to a file, whole or not at all; `xlstm_ts.streaming.snapshots` says when.

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
        arrays = {**self.state, STATIC: self._static}
        snapshot = Snapshot(offset, {"last": self._last, "untold": self._untold}, arrays)
        write_snapshot(path, snapshot, contract=self._contract, kind="stream")

    def restore(self, path: Place) -> Any:
        """Go on from a snapshot, to the bit; return its offset.

        Raises
        ------
        StreamError
            Where the file is damaged, or of another model; the stream is then as before.
        FileNotFoundError
            Where there is no file.
        """
        offset, content, arrays = read_snapshot(path, contract=self._contract, kind="stream")
        with content_of("The snapshot", kind="snapshot of a stream", error=StreamError):
            static, last, untold = arrays.pop(STATIC), int(content["last"]), int(content["untold"])
            state = checked_state(arrays, self._contract)
            self._columns.lay_static(static, self._now)
        self._static = static
        self._set(state, last=last, untold=untold)
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
        values = zip(self._contract.state, self._views(), strict=True)
        return {described.name: value.copy() for described, value in values}

    @state.setter
    def state(self, state: Mapping[str, ArrayLike]) -> None:
        self._set(checked_state(state, self._contract))

    def _take_beside(
        self,
        covariates: Values | None,
        future: Values | None,
        time: Time | Sequence[Time] | None,
    ) -> None:
        """Put what goes with a reading where the graph looks for it."""
        if not self._has_columns and not (covariates is None and future is None):
            raise StreamError("The model was trained without covariates: give the reading alone.")
        zone, told, last, count = self._contract.zone, None, self._last, 0
        if time is not None:
            told = read_times(time, zone=zone, is_calendar=self._columns.is_calendar)
            last = moment_after(told, last, zone=zone)
            told = told._replace(moments=(last,))
            count = self._steps.left_out(last, self._last, self._untold)
        beside = self._columns.read(covariates, future, told)
        # Nothing can be refused from here on.
        self.filled = NOTHING
        if count:
            reading = self._reading.copy()
            self.filled = self._pass_over(last, count)
            self._reading[...] = reading
        self._columns.lay(beside, self._now[0], self._ahead[0])
        self._last, self._untold = last, 0 if told is not None else self._untold + 1

    def _pass_over(self, moment: int, count: int) -> Filled:
        """Step stamps that were left out before a reading, as missing ones."""
        recurrence, left = Recurrence(), count
        while left:
            self._reading.fill(np.nan)
            beside = self._columns.missing(self._steps.before(moment, left))
            self._columns.lay(beside, self._now[0], self._ahead[0])
            output = self._advance()
            left = recurrence.left(left - 1, self._views())
        return Filled(count, output)

    def _take(self, reading: ArrayLike) -> None:
        """Put a reading where the graph looks for it."""
        for place, value in enumerate(read_reading(reading, self._channels)):
            self._told[place] = value

    def _advance(self) -> StreamOutput:
        now, after = self._current, 1 - self._current
        if self._is_away:
            # What is bound for another device is copied when it is bound, and not again.
            self._bindings[now] = self._bind(self._session, now, after)
        self._run(self._bindings[now])
        self._current = after
        return self._output()

    def _output(self) -> StreamOutput:
        # What a run has put out of the caches is slow: two copies are faster than a copy and a
        # view, and the constructor of a named tuple is Python.
        return tuple.__new__(StreamOutput, (self._point.copy(), self._quantiles.copy()))

    def _views(self) -> list[Array]:
        """Return the state: on the CPU our memory, elsewhere a copy."""
        return [value.numpy() for value in self._states[self._current]]

    def _set(self, state: list[Array], *, last: int = NEVER, untold: int = 0) -> None:
        for value, array in zip(self._states[self._current], state, strict=True):
            value.update_inplace(array)
        self._last, self._untold, self.filled = last, untold, NOTHING

    def _bind(self, session: Any, source: int, target: int) -> Any:
        """Bind the graph once to read one copy of the state and write the other."""
        given = {READING: self._reading, COVARIATES: self._now, FUTURE: self._ahead}
        inputs = {name: tensor(given[name]) for name in self._contract.inputs}
        outputs = {FORECAST: tensor(self._forecast)}
        for place, described in enumerate(self._contract.state):
            inputs[described.name] = self._states[source][place]
            outputs[next_name(described.name)] = self._states[target][place]
        return bind(session, inputs=inputs, outputs=outputs)
