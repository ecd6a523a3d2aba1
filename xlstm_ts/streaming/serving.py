"""Readings in, forecasts and alerts out, of one stream or of many by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from xlstm_ts.exceptions import StreamError
from xlstm_ts.streaming.alerts import Alert, BandRule
from xlstm_ts.streaming.keys import Key
from xlstm_ts.streaming.models import StreamModel
from xlstm_ts.streaming.outputs import NOTHING, Filled, StreamOutput
from xlstm_ts.streaming.pool import StreamPool
from xlstm_ts.streaming.snapshots import Place
from xlstm_ts.streaming.streams import Stream
from xlstm_ts.streaming.times import Time

NONE: Mapping[str, Any] = MappingProxyType({})


class Reading(NamedTuple):
    """One reading and all that came with it.

    Attributes
    ----------
    key : str, int, tuple of these or None
        Which stream it belongs to; None where there is one.
    values : list of float
        One number a channel, NaN where missing.
    covariates : dict of str to float, or None
        The past and known columns; None where the model has none.
    future : mapping or None
        What is known ahead, as it came.
    time : Time, sequence of Time or None
        What the stream is to be told as the time.
    shown : object
        The time as it came.
    static : mapping
        What is static of its stream.
    faults : mapping of str to str
        By field, what is wrong with values that cannot be used and count as missing.
    """

    key: Key | None
    values: list[float]
    covariates: dict[str, float] | None = None
    future: Mapping[str, Any] | None = None
    time: Time | Sequence[Time] | None = None
    shown: Any = None
    static: Mapping[str, Any] = NONE
    faults: Mapping[str, str] = NONE


class Served(NamedTuple):
    """What a reading gave.

    Attributes
    ----------
    reading : Reading
        The reading.
    output : StreamOutput
        The forecast of the next ones.
    alerts : list of Alert
        What is out of the ordinary in this one.
    filled : int
        Stamps that were left out before it, and taken as missing readings.
    """

    reading: Reading
    output: StreamOutput
    alerts: list[Alert]
    filled: int = 0

    @property
    def is_alert(self) -> bool:
        """Whether there is an alert."""
        return bool(self.alerts)


class Server:
    """The streams of one model, as many as there are keys.

    Parameters
    ----------
    model : StreamModel
        The loaded graph.
    is_keyed : bool
        Whether readings name their stream.
    static : mapping, optional
        What is static of the stream, or of those whose readings do not say.
    margin : float, optional
        Alert readings that lie so many widths of their band outside of it; None alerts nothing.
    expire_after : timedelta, optional
        Forget streams whose last reading is longer ago, by the times of the readings.

    Raises
    ------
    ValueError
        Where a stream without a name is to be forgotten.
    """

    def __init__(
        self,
        model: StreamModel,
        *,
        is_keyed: bool,
        static: Mapping[str, Any] | None = None,
        margin: float | None = None,
        expire_after: timedelta | None = None,
    ) -> None:
        check_expiry(expire_after, is_keyed=is_keyed)
        self._rule = None if margin is None else BandRule(model.contract, margin=margin)
        self._given = dict(static or {})
        self._statics: dict[Key | None, dict[str, Any]] = {}
        self._has_columns = bool(model.contract.columns)
        self._streams: Stream | StreamPool = (
            StreamPool(model, static=self._statics, expire_after=expire_after)
            if is_keyed
            else model.create_stream(static=self._given or None)
        )

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams) if isinstance(self._streams, StreamPool) else 1

    def serve(self, readings: Sequence[Reading]) -> list[Served | StreamError]:
        """Take readings in their order; return what each gave, or why it cannot be used.

        Of many streams those that come are advanced together, each key once at a time. The same
        calls give the same bits.
        """
        if isinstance(self._streams, Stream):
            return [self._serve_one(self._streams, reading) for reading in readings]
        return [
            served
            for together in each_key_once(readings)
            for served in self._serve_together(self._streams, together)
        ]

    def snapshot(self, path: Place, *, offset: Mapping[str, Any]) -> None:
        """Write all that is needed to go on, with how far the input was read."""
        alerts = None if self._rule is None else self._rule.state()
        self._streams.snapshot(path, offset={**offset, "alerts": alerts})

    def restore(self, path: Place) -> dict[str, Any]:
        """Go on from a snapshot; return its offset.

        Raises
        ------
        StreamError
            Where it is damaged, of another model, or not written by a `Server`.
        """
        offset = self._streams.restore(path)
        if not isinstance(offset, dict) or "alerts" not in offset:
            raise StreamError(
                f"{path} was not written by the command `stream` or another `Server`: give another "
                "file."
            )
        if self._rule is not None:
            self._rule.restore(offset["alerts"] or [])
        return {name: value for name, value in offset.items() if name != "alerts"}

    def _serve_one(self, stream: Stream, reading: Reading) -> Served | StreamError:
        try:
            output = stream.step(
                reading.values, reading.covariates, reading.future, time=reading.time
            )
        except StreamError as err:
            return err
        return self._judged(reading, output, stream.filled)

    def _serve_together(
        self, pool: StreamPool, readings: Sequence[Reading]
    ) -> list[Served | StreamError]:
        try:
            outputs = self._step(pool, readings)
        except StreamError as err:
            if len(readings) == 1:
                return [err]
            # One cannot be used, and the pool is as before: take them one by one.
            return [self._serve_together(pool, [reading])[0] for reading in readings]
        filled = pool.filled
        return [
            self._judged(one, outputs[one.key], filled.get(one.key, NOTHING)) for one in readings
        ]

    def _step(self, pool: StreamPool, readings: Sequence[Reading]) -> dict[Any, StreamOutput]:
        for reading in readings:
            if reading.key not in pool:
                self._statics[reading.key] = {**self._given, **reading.static}
        outputs = pool.step(
            {one.key: one.values for one in readings},
            covariates=_by_key(readings, "covariates") if self._has_columns else None,
            future=_by_key(readings, "future") if self._has_columns else None,
            time=times_by_key(readings),
        )
        self._statics.clear()  # a pool looks them up when a key joins
        if self._rule is not None:
            for key in pool.expired:
                self._rule.forget(key)
        return outputs

    def _judged(self, reading: Reading, output: StreamOutput, filled: Filled) -> Served:
        alerts: list[Alert] = []
        if self._rule is not None:
            if filled.output is not None:  # what was forecast before a gap is of another time
                self._rule.expect(reading.key, filled.output.quantiles)
            alerts = self._rule.check(reading.key, reading.values)
            self._rule.expect(reading.key, output.quantiles)
        return Served(reading, output, alerts, filled.stamps)


def check_expiry(expire_after: timedelta | None, *, is_keyed: bool) -> None:
    """Refuse to forget streams that have no name."""
    if expire_after is not None and not is_keyed:
        raise ValueError(
            "--expire-after forgets streams by their names, and nothing names them: give a --key, "
            "or with --mqtt a --topic with + or #."
        )


def times_by_key(readings: Sequence[Reading]) -> Any:
    """Return times by key, or the one that all tell: of sensors of one clock it is read once."""
    first = readings[0].time
    if all(one.time == first for one in readings):
        return first
    return {one.key: one.time for one in readings if one.time is not None}


def each_key_once(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """Cut readings, in their order, wherever a key comes again."""
    together: list[Reading] = []
    keys: set[Key | None] = set()
    for reading in readings:
        if reading.key in keys:
            yield together
            together, keys = [], set()
        together.append(reading)
        keys.add(reading.key)
    if together:
        yield together


def _by_key(readings: Sequence[Reading], name: str) -> dict[Any, Any]:
    pairs = ((one.key, getattr(one, name)) for one in readings)
    return {key: value for key, value in pairs if value is not None}
