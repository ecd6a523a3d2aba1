"""A connection to an MQTT broker that comes back, and forgets no message in between.

One thread: while readings are served nothing is read from the socket, and the broker waits. A
message is acknowledged by `Link.acknowledge` and not before, so what a killed process had not
acknowledged is given again, marked as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from xlstm_ts.cli.stopping import Stop
from xlstm_ts.exceptions import BackendError, StreamError

try:
    from paho.mqtt.client import Client, MQTTMessage, topic_matches_sub
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
except ImportError as err:
    raise BackendError(
        "Streams from a broker need paho-mqtt: pip install 'xlstm-ts[mqtt]'."
    ) from err

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEP_ALIVE = 60
TURN = 0.2  # seconds after which a signal is seen
ANSWER_WITHIN = 10
FIRST_PAUSE, LONGEST_PAUSE = 1, 30
# What trying again does not help against: version, name of the client, user, rights.
FINAL = {132, 133, 134, 135}


def is_within(topic: str, pattern: str) -> bool:
    """Return whether a subscription to a pattern gives a topic."""
    return topic_matches_sub(pattern, topic)


class Broker(NamedTuple):
    """Where a broker is, and as whom to speak to it."""

    host: str
    port: int
    is_secure: bool
    user: str | None
    password: str | None

    @classmethod
    def from_url(cls, url: str, *, user: str | None = None, password: str | None = None) -> Broker:
        """Read mqtt://user:password@host:port, or mqtts:// for TLS; the URL comes first.

        Raises
        ------
        ValueError
            Where it is no such URL. The message does not repeat it: it may hold a password.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as err:
            raise ValueError(f"--mqtt has no port that can be: {err}.") from err
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError(
                "--mqtt takes a URL such as mqtt://host, mqtt://user:password@host:1883 or, for "
                "TLS, mqtts://host."
            )
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            is_secure=parts.scheme == "mqtts",
            user=user if parts.username is None else unquote(parts.username),
            password=password if parts.password is None else unquote(parts.password),
        )


class Arrived(NamedTuple):
    """A message that waits to be served.

    Attributes
    ----------
    topic : str
        Its topic.
    payload : bytes
        What it holds.
    number : int
        By which it is acknowledged.
    quality : int
        Its quality of service; what has 0 is not acknowledged.
    is_again : bool
        Whether it was given before, and not acknowledged.
    session : int
        Of which session with the broker the number is.
    """

    topic: str
    payload: bytes
    number: int
    quality: int
    is_again: bool
    session: int


class Link:
    """A connection to a broker, and the messages that came over it.

    Parameters
    ----------
    broker : Broker
        Where to connect.
    topic : str
        What to subscribe to, at least once (QoS 1).
    name : str
        The name of the client, under which the broker keeps what comes while it is away.
    backlog : int
        Messages that may wait here. More are not acknowledged and given again by the broker, once
        those have been served, over a new connection. (What was published with QoS 0 is lost then.)
    stop : Stop
        Ends every wait.
    say : callable
        Told what happens to the connection.

    Attributes
    ----------
    counts : dict of str to int
        Messages that came again though they had been served ("repeated"), were old when they came
        ("retained"), or found the backlog full ("left with the broker").
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        name: str,
        backlog: int,
        stop: Stop,
        say: Callable[[str], None],
    ) -> None:
        self._broker, self._topic, self._limit = broker, topic, backlog
        self._stop, self._say = stop, say
        self._backlog: list[Arrived] = []
        self._known: dict[int, int] = {}  # by number, what waits or is served
        self._served: set[int] = set()
        self._unconfirmed: set[int] = set()
        self._is_full = self._is_connected = False
        self._refused, self._session = "", 0
        self.counts = {"repeated": 0, "retained": 0, "left with the broker": 0}
        self._client = self._make_client(name)

    def receive(self) -> list[Arrived]:
        """Return all messages that are there; none where none comes for a moment."""
        if not self._is_connected or (self._is_full and not self._backlog):
            self._connect()
        self._turn(TURN)
        count = -1
        while count < len(self._backlog) < self._limit:
            count = len(self._backlog)
            self._turn(0)
        arrived, self._backlog = self._backlog, []
        return arrived

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        """Publish at least once; return whether the broker has confirmed all, which a stop ends."""
        for topic, payload in messages:
            self._unconfirmed.add(self._client.publish(topic, payload, qos=1).mid)
        asked = None
        while self._unconfirmed:
            if self._stop.signal is not None:
                asked = asked or time.monotonic()
                if not self._is_connected or time.monotonic() > asked + ANSWER_WITHIN:
                    return False
            elif not self._is_connected:
                self._connect()
            self._turn(TURN)
        return True

    def acknowledge(self, messages: Sequence[Arrived]) -> None:
        """Tell the broker that messages are served, and need not be given again."""
        for message in messages:
            if message.quality and message.session == self._session:
                self._served.add(message.number)
                self._client.ack(message.number, message.quality)

    def close(self) -> None:
        """Take leave of the broker, which goes on to keep what comes."""
        if self._is_connected:
            self._client.disconnect()
            self._turn(0)

    def _make_client(self, name: str) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.is_secure:
            client.tls_set()
        client.on_connect = self._note_connected
        client.on_subscribe = self._note_subscribed
        client.on_disconnect = self._note_lost
        client.on_message = self._note_message
        client.on_publish = self._note_published
        client.connect_async(self._broker.host, self._broker.port, KEEP_ALIVE)
        return client

    def _connect(self) -> None:
        """Connect, and try again until it is done or a stop is asked.

        Raises
        ------
        StreamError
            Where the broker refuses, and would refuse again.
        """
        self._is_connected = self._is_full = False
        pause = FIRST_PAUSE
        while self._stop.signal is None:
            reason = self._try_to_connect()
            if self._refused:
                raise StreamError(f"The broker refuses: {self._refused}.")
            if self._is_connected:
                return
            place = f"{self._broker.host}:{self._broker.port}"
            self._say(f"no connection to {place} ({reason}), tried again in {pause} s")
            end = time.monotonic() + pause
            while self._stop.signal is None and time.monotonic() < end:
                time.sleep(TURN)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _try_to_connect(self) -> str:
        """Connect; return why it failed, if it did."""
        try:
            self._client.reconnect()
        except OSError as err:
            return str(err)
        end = time.monotonic() + ANSWER_WITHIN
        while time.monotonic() < end and not self._is_connected and not self._refused:
            if self._client.loop(TURN):
                return "it was closed"
        return "no answer"

    def _turn(self, seconds: float) -> None:
        """Read and write what there is, for so long at most."""
        if self._is_connected and self._client.loop(seconds):
            self._is_connected = False

    def _note_connected(self, _: Any, __: Any, flags: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason) if reason.value in FINAL else ""
            return
        self._is_connected = True
        if not flags.session_present:  # numbers begin anew
            self._session += 1
            self._known, self._served = {}, set()
        self._client.subscribe(self._topic, qos=1)

    def _note_subscribed(self, _: Any, __: Any, ___: Any, reasons: Any, ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refused = f"no right to subscribe to {self._topic!r}"

    def _note_lost(self, *_: Any) -> None:
        was_connected, self._is_connected = self._is_connected, False
        if was_connected and self._stop.signal is None:
            self._say(f"lost the connection to {self._broker.host}:{self._broker.port}")

    def _note_published(self, _: Any, __: Any, number: int, *___: Any) -> None:
        self._unconfirmed.discard(number)

    def _note_message(self, _: Any, __: Any, message: MQTTMessage) -> None:
        number, content = message.mid, hash((message.topic, message.payload))
        if message.retain:  # the last one before we came, and again at each connection
            self.counts["retained"] += 1
            self._client.ack(number, message.qos)
        elif message.qos and message.dup and self._known.get(number) == content:
            self.counts["repeated"] += 1
            if number in self._served:
                self._client.ack(number, message.qos)
        elif self._is_full or len(self._backlog) >= self._limit:
            self._is_full = True
            self.counts["left with the broker"] += 1
        else:
            self._known[number] = content
            self._served.discard(number)
            self._backlog.append(
                Arrived(
                    message.topic,
                    bytes(message.payload),
                    number=number,
                    quality=message.qos,
                    is_again=message.dup,
                    session=self._session,
                )
            )
