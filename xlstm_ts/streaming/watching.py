"""Readings in, verdicts out: the streams of a detector, one or many by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.exceptions import StreamError
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import DetectorModel, DetectorStream
from xlstm_ts.streaming.serving import Reading, check_expiry, each_key_once, times_by_key
from xlstm_ts.streaming.snapshots import Place


class Judged(NamedTuple):
    """What a reading gave.

    Attributes
    ----------
    reading : Reading
        The reading.
    verdict : Verdict
        What the detector says of it.
    filled : int
        Stamps that were left out before it, and taken as missing readings.
    """

    reading: Reading
    verdict: Verdict
    filled: int = 0

    @property
    def is_alert(self) -> bool:
        """Whether the reading is in alarm."""
        return self.verdict.alarm


class DetectorServer:
    """The streams of one detector, as many as there are keys; `Server` for verdicts.

    Parameters
    ----------
    model : DetectorModel
        The loaded detector.
    is_keyed : bool
        Whether readings name their stream.
    expire_after : timedelta, optional
        Forget streams whose last reading is longer ago, by the times of the readings; needs keys.
    """

    def __init__(
        self, model: DetectorModel, *, is_keyed: bool, expire_after: timedelta | None = None
    ) -> None:
        check_expiry(expire_after, is_keyed=is_keyed)
        self._streams: DetectorStream | DetectorPool = (
            DetectorPool(model, expire_after=expire_after) if is_keyed else model.create_stream()
        )

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams) if isinstance(self._streams, DetectorPool) else 1

    def serve(self, readings: Sequence[Reading]) -> list[Judged | StreamError]:
        """Take readings in their order; return what each gave, or why it cannot be used."""
        if isinstance(self._streams, DetectorStream):
            return [_serve_one(self._streams, reading) for reading in readings]
        return [
            judged
            for together in each_key_once(readings)
            for judged in _serve_together(self._streams, together)
        ]

    def snapshot(self, path: Place, *, offset: Mapping[str, Any]) -> None:
        """Write all that is needed to go on, with how far the input was read."""
        self._streams.snapshot(path, offset=dict(offset))

    def restore(self, path: Place) -> dict[str, Any]:
        """Go on from a snapshot; return its offset.

        Raises
        ------
        StreamError
            Where it is damaged, of another model, or not written by a `DetectorServer`.
        """
        offset = self._streams.restore(path)
        if not isinstance(offset, dict):
            raise StreamError(
                f"{path} was not written by the command `stream` or another `DetectorServer`: give "
                "another file."
            )
        return offset


def _serve_one(stream: DetectorStream, reading: Reading) -> Judged | StreamError:
    time: Any = reading.time
    try:
        return Judged(reading, stream.step(reading.values, time=time), stream.filled)
    except StreamError as err:
        return err


def _serve_together(pool: DetectorPool, readings: Sequence[Reading]) -> list[Judged | StreamError]:
    values = {one.key: one.values for one in readings}
    try:
        verdicts = pool.step(values, time=times_by_key(readings))
    except StreamError as err:
        if len(readings) == 1:
            return [err]
        # One cannot be used, and the pool is as before: take them one by one.
        return [_serve_together(pool, [reading])[0] for reading in readings]
    return [Judged(one, verdicts[one.key], pool.filled.get(one.key, 0)) for one in readings]
