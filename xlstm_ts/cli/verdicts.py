"""What a detector says, as text: lines of JSON, or rows of CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from xlstm_ts.anomaly.events import Event
from xlstm_ts.anomaly.stages import Floats
from xlstm_ts.cli.writers import rows_of_csv
from xlstm_ts.streaming.watching import Judged

# A reading that was judged, and the line of the input that it stood on.
VerdictWriter = Callable[[Judged, int | None], bytes]
SCORES = ("point", "range", "level", "recent", "relation", "slow")


def json_verdicts(channels: tuple[str, ...]) -> VerdictWriter:
    """Return a function that writes a verdict as one line.

    {"line": 7, "key": ..., "time": ..., "status": "ok", "alarm": false, "score": ..., "scores":
    {view: ...}, "channels": {channel: share}, "event": null or {"number": ..., "kind": ...,
    "start": ..., "end": ..., "peak": ..., "is_open": ..., "channels": {channel: share}}}. Readings
    of an event are counted from the first of its stream. `line`, `key` and `time` are there where
    they are known.
    """

    def write(judged: Judged, line: int | None) -> bytes:
        reading, verdict = judged.reading, judged.verdict
        beside = {"line": line, "key": reading.key, "time": reading.shown}
        record = {
            **{name: value for name, value in beside.items() if value is not None},
            "status": verdict.status,
            "alarm": bool(verdict.alarm),
            "score": _number(verdict.score),
            "scores": {name: _number(getattr(verdict, f"{name}_score")) for name in SCORES},
            "channels": _shares(channels, verdict.contributions),
            "event": None if verdict.event is None else _as_json(verdict.event, channels),
        }
        return f"{json.dumps(record)}\n".encode()

    return write


def csv_verdicts_header(*, is_keyed: bool) -> bytes:
    """Return the first line of what `csv_verdicts` writes."""
    names = ["status", "alarm", "score", "channel", "share", "event", "kind"]
    return rows_of_csv([["line", *(["key"] if is_keyed else []), "time", *names]])


def csv_verdicts(channels: tuple[str, ...], *, is_keyed: bool) -> VerdictWriter:
    """Return a function that writes a verdict as one row.

    `channel` has the largest share in the score; there is none where nothing is scored. `event` is
    the number of the event that is open, or has just closed.
    """

    def write(judged: Judged, line: int | None) -> bytes:
        reading, verdict = judged.reading, judged.verdict
        place = int(verdict.contributions.argmax())
        share = _number(verdict.contributions[place])
        event = verdict.event
        row = [
            *[line, *([reading.key] if is_keyed else []), reading.shown],
            *[verdict.status, int(verdict.alarm), _number(verdict.score)],
            *([channels[place], share] if share else ["", ""]),
            *(["", ""] if event is None else [event.number, event.kind]),
        ]
        return rows_of_csv([row])

    return write


def _as_json(event: Event, channels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "number": event.number,
        "kind": event.kind,
        "start": event.start,
        "end": event.end,
        "peak": _number(event.peak),
        "is_open": bool(event.is_open),
        "channels": _shares(channels, event.shares),
    }


def _shares(channels: tuple[str, ...], shares: Floats) -> dict[str, float | None]:
    return {name: _number(share) for name, share in zip(channels, shares, strict=True)}


def _number(value: float) -> float | None:
    """Return a number of six digits, as many as mean something; None where there is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
