"""A stream from a broker to a broker: readings of one topic, forecasts and alerts to another.

At least once: a message is acknowledged after the broker has what it gave. Killed between the two,
a stream gives that again, and takes the reading again if it has no time; by its time it is known as
one that was taken. What cannot be used goes to a topic of its own, and never ends a stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from xlstm_ts.checks import check_integer
from xlstm_ts.cli.faults import Faults
from xlstm_ts.cli.feeds import ReadingParser
from xlstm_ts.cli.mqtt_link import Arrived, Broker, Link, is_within
from xlstm_ts.cli.services import Outcome, Service, open_service
from xlstm_ts.cli.stopping import Stop
from xlstm_ts.exceptions import StreamError

KEY = "{key}"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class MqttOptions:
    """What a stream is to read and write.

    Parameters
    ----------
    model : Path
        The step graph.
    broker : Broker
        Where the topics are.
    topic : str
        What to subscribe to; the levels that a wildcard stands for name the stream.
    publish : str
        Where forecasts go to; "{key}" stands for the name of the stream.
    dead_letter : str, optional
        Where {"topic", "payload", "error"} of what cannot be used goes to.
    name : str, optional
        The name of the client; by default it follows from the topics and the model.
    backlog : int
        Messages that may wait.
    key, time : str, optional
        Fields of the name of the stream, in place of the topic, and of the time.
    time_format, static, margin, expire_after, only_alerts, snapshot
        As in `xlstm_ts.cli.pipes.PipeOptions`.
    every : int
        Readings between two snapshots.
    """

    model: Path
    broker: Broker
    topic: str
    publish: str
    dead_letter: str | None = None
    name: str | None = None
    backlog: int = 1000
    key: str | None = None
    time: str | None = None
    time_format: str | None = None
    static: Mapping[str, Any] | None = None
    margin: float | None = None
    expire_after: timedelta | None = None
    only_alerts: bool = False
    snapshot: Path | None = None
    every: int = 1000

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        check_integer("snapshot-every", self.every, least=1)
        check_integer("backlog", self.backlog, least=1)
        if KEY in self.publish and not self.is_keyed:
            raise ValueError(
                f"--publish has {KEY}, and nothing names the streams: give a --topic with + or #, "
                "or a --key."
            )
        for option, topic in (("publish", self.publish), ("dead-letter", self.dead_letter)):
            if topic is not None and is_within(topic.replace(KEY, "key"), self.topic):
                raise ValueError(
                    f"--{option} {topic} is within --topic {self.topic}: what is written would be "
                    "read again; give another one."
                )

    @property
    def is_keyed(self) -> bool:
        """Whether there are many streams."""
        return self.key is not None or "+" in self.topic or "#" in self.topic


def key_of(topic: str, *, pattern: str) -> str:
    """Return what the wildcards of a pattern stand for, the levels joined by slashes."""
    levels, parts = topic.split("/"), pattern.split("/")
    found = [level for level, part in zip(levels, parts) if part == "+"]  # noqa: B905 - # is longer
    if parts[-1] == "#":
        found += levels[len(parts) - 1 :]
    return "/".join(found)


def run_mqtt(options: MqttOptions, *, say: Say) -> int:
    """Stream until a signal comes; return the exit code.

    Raises
    ------
    StreamError
        Where graph or snapshot cannot be used, or the broker refuses.
    """
    service = open_service(
        options.model,
        is_keyed=options.is_keyed,
        static=options.static,
        margin=options.margin,
        expire_after=options.expire_after,
        only_alerts=options.only_alerts,
    )
    readings = 0
    if options.snapshot is not None and options.snapshot.exists():
        offset = service.server.restore(options.snapshot)
        if offset.keys() != {"readings"}:
            raise StreamError(
                f"{options.snapshot} is not of a stream from a broker: give another one."
            )
        readings = offset["readings"]
    with Stop() as stop:
        link = Link(
            options.broker,
            options.topic,
            name=options.name or _name(options, service),
            backlog=options.backlog,
            stop=stop,
            say=say,
        )
        bridge = _Bridge(options, service, link=link, readings=readings, say=say)
        bridge.run(stop)
        say(bridge.summary())
        return stop.exit_code


class _Bridge:
    """One run: what it reads with, where it writes to, and what was done."""

    def __init__(
        self,
        options: MqttOptions,
        service: Service,
        *,
        link: Link,
        readings: int,
        say: Say,
    ) -> None:
        self._options, self._server, self._link, self._say = options, service.server, link, say
        self._parser = ReadingParser(
            service.contract,
            key=options.key,
            time=options.time,
            time_format=options.time_format,
            report=say,
        )
        self._faults = Faults(say)
        self._write = service.to_json
        self._readings, self._kept = readings, readings
        self._unusable = self._alerts = self._filled = self._repeated = 0

    def run(self, stop: Stop) -> None:
        """Serve what comes, and keep the state at the end."""
        while stop.signal is None:
            messages = self._link.receive()
            if messages and not self._serve(messages):
                return  # nobody has the last forecasts: the snapshot before them stands
        self._snapshot()
        self._link.close()

    def summary(self) -> str:
        """Return what was done, in a sentence."""
        counts = {
            "readings": self._readings,
            "streams": self._server.streams,
            "with an alert": self._alerts,
            "left-out stamps filled": self._filled,
            "unusable values taken as missing": self._faults.count,
            "unusable messages": self._unusable,
            **self._link.counts,
        }
        counts["repeated"] += self._repeated
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)

    def _serve(self, messages: list[Arrived]) -> bool:
        """Serve messages; return whether the broker has what they gave."""
        errors: dict[int, StreamError] = {}
        readings = {}
        for place, message in enumerate(messages):
            try:
                key = key_of(message.topic, pattern=self._options.topic)
                readings[place] = self._parser.from_json(message.payload, key=key or None)
            except StreamError as err:
                errors[place] = err
        served = dict(zip(readings, self._server.serve([*readings.values()]), strict=True))
        out: list[tuple[str, bytes]] = []
        for place, message in enumerate(messages):
            outcome = errors.get(place) or served[place]
            if not isinstance(outcome, StreamError):
                out += self._told(outcome, message)
            elif message.is_again and place not in errors:
                self._repeated += 1  # its time has passed: it was taken before
            else:
                out += self._dead_letter(message, error=str(outcome))
        if not self._link.publish(out):
            return False
        if self._readings - self._kept >= self._options.every:
            self._snapshot()
        self._link.acknowledge(messages)
        return True

    def _told(self, served: Outcome, message: Arrived) -> list[tuple[str, bytes]]:
        self._readings += 1
        self._alerts += served.is_alert
        self._filled += served.filled
        self._faults.note(served.reading, where=message.topic)
        faults = served.reading.faults
        letters = self._letter(message, error=" ".join(faults.values())) if faults else []
        if self._options.only_alerts and not served.is_alert:
            return letters
        topic = self._options.publish.replace(KEY, str(served.reading.key))
        if set(topic) & set("+#\0"):
            return self._dead_letter(message, error=f"{topic} is no topic to publish to.")
        return [*letters, (topic, self._write(served, None).rstrip())]

    def _dead_letter(self, message: Arrived, *, error: str) -> list[tuple[str, bytes]]:
        self._unusable += 1
        self._say(f"{message.topic}: {error}")
        return self._letter(message, error=error)

    def _letter(self, message: Arrived, *, error: str) -> list[tuple[str, bytes]]:
        if self._options.dead_letter is None:
            return []
        payload = message.payload.decode("utf-8", "backslashreplace")
        letter = {"topic": message.topic, "payload": payload, "error": error}
        return [(self._options.dead_letter, json.dumps(letter).encode())]

    def _snapshot(self) -> None:
        if self._options.snapshot is not None:
            self._server.snapshot(self._options.snapshot, offset={"readings": self._readings})
            self._kept = self._readings


def _name(options: MqttOptions, service: Service) -> str:
    """Return a name that is the same at each start: the broker keeps messages under it."""
    parts: Sequence[str] = (options.topic, options.publish, service.contract.weights_hash)
    return f"xlstm-ts-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"
