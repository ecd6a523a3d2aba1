"""A stream between topics of a real broker: mosquitto where it is installed, otherwise amqtt."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.cli import main
from xlstm_ts.cli.mqtt import key_of
from xlstm_ts.cli.mqtt_link import Broker
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.detectors import DetectorModel

paho = pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt: the extra mqtt")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
OPENSSL = shutil.which("openssl")
LINE = '{{"a": {}, "b": 3, "time": "2026-01-31T{:02d}:00"}}'
WITHIN = 60


needs_sessions = pytest.mark.skipif(
    not MOSQUITTO, reason="no mosquitto: amqtt keeps nothing for a client that is away"
)


def wait_until(is_done: Callable[[], object], *, what: str) -> None:
    end = time.monotonic() + WITHIN
    while not is_done():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


class RunningBroker:
    """A broker on a port of the loopback that can be stopped and started again."""

    def __init__(self, folder: Path, *, is_open: bool = True, is_secure: bool = False) -> None:
        self.folder, self.is_open, self.is_secure = folder, str(is_open).lower(), is_secure
        self.certificate, self.secret = folder / "certificate.pem", folder / "key.pem"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        if is_secure:
            self.certify()

    @property
    def url(self) -> str:
        scheme = "mqtts" if self.is_secure else "mqtt"
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.folder / "broker.conf"
        if MOSQUITTO:
            files = f"certfile {self.certificate}\nkeyfile {self.secret}\n"
            files = files if self.is_secure else ""
            config.write_text(
                f"listener {self.port} 127.0.0.1\n{files}allow_anonymous {self.is_open}\n"
                f"persistence true\npersistence_location {self.folder}/\nuser root\n"
            )
            command = [MOSQUITTO, "-c", str(config)]
        else:
            files = f"    ssl: true\n    certfile: {self.certificate}\n    keyfile: {self.secret}\n"
            files = files if self.is_secure else ""
            config.write_text(
                f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
                f"{files}"
                "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n"
                f"    allow_anonymous: {self.is_open}\n"
            )
            command = [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.is_there, what="broker")

    def certify(self) -> None:
        """Write a certificate for the loopback that nobody else has signed, and its key."""
        assert OPENSSL
        made = [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        made += ["-subj", "/CN=plant", "-addext", "subjectAltName=IP:127.0.0.1"]
        made += ["-keyout", str(self.secret), "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True)

    def is_there(self) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class Plant:
    """Publishes readings, and keeps what comes from the stream."""

    def __init__(self, broker: RunningBroker) -> None:
        self.came: list[tuple[str, dict[str, object]]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _, __, message: self.came.append(
            (message.topic, json.loads(message.payload))
        )
        self.client.on_connect = lambda client, *_: client.subscribe([("out/#", 1), ("dead", 1)])
        self.client.reconnect_delay_set(1, 1)
        if broker.is_secure:
            self.client.tls_set(ca_certs=str(broker.certificate))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        wait_until(self.client.is_connected, what="connection")
        time.sleep(0.2)

    def publish(self, topic: str, payload: str | bytes, **options: object) -> None:
        self.client.publish(topic, payload, qos=1, **options).wait_for_publish(WITHIN)

    def wait_for(self, count: int) -> list[tuple[str, dict[str, object]]]:
        wait_until(lambda: len(self.came) >= count, what=f"{count} messages, {self.came}")
        return self.came

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Bridge:
    """The command in a process of its own, once it is connected."""

    def __init__(
        self, graph: Path, broker: RunningBroker, *options: object, is_trusting: bool = True
    ) -> None:
        self.log = broker.folder / "log"
        topics = ["--topic", "plant/+/sensors", "--publish", "out/{key}", "--dead-letter", "dead"]
        command = [sys.executable, "-m", "xlstm_ts", "stream", graph, "--mqtt", broker.url]
        self.command = [*map(str, command), *topics, *map(str, options)]
        self.environment = {**os.environ}
        if broker.is_secure and is_trusting:
            self.environment["SSL_CERT_FILE"] = str(broker.certificate)
        self.process = self.again()

    def again(self) -> subprocess.Popen[bytes]:
        """Start the command, or the same once more; it ends with the test."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, env=self.environment)
        return self.process

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN)


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Start a broker; "mqtts" as the parameter is one with TLS."""
    if not MOSQUITTO and find_spec("amqtt") is None:
        pytest.skip("no broker: neither mosquitto nor amqtt is installed")
    is_secure = getattr(request, "param", "mqtt") == "mqtts"
    if is_secure and not OPENSSL:
        pytest.skip("no openssl, which makes the certificate")
    running = RunningBroker(tmp_path, is_secure=is_secure)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def plant(broker: RunningBroker) -> Iterator[Plant]:
    made = Plant(broker)
    yield made
    made.close()


@pytest.fixture
def start(graph_path: Path, broker: RunningBroker, plant: Plant) -> Iterator[Callable[..., Bridge]]:
    """Return what starts the command and waits until it is served by it."""
    started: list[Bridge] = []

    def begin(*options: object, graph: Path = graph_path) -> Bridge:
        bridge = Bridge(graph, broker, *options)
        started.append(bridge)

        def answers() -> bool:
            plant.client.publish("plant/probe/sensors", "?", qos=0)
            time.sleep(0.1)
            return any("?" in str(body) for _, body in plant.came)

        wait_until(answers, what=f"answer, {bridge.log.read_text()}")
        time.sleep(0.5)
        plant.came.clear()
        return bridge

    yield begin
    for bridge in started:
        bridge.process.kill()
        bridge.process.wait()


def test_forecasts_alerts_and_dead_letters(
    graph_path: Path, plant: Plant, start: Callable[..., Bridge]
) -> None:
    bridge = start("--alert-outside", 2)
    for hour in range(3):
        for pump in ("1", "2"):
            plant.publish(f"plant/pump {pump}/sensors", LINE.format(500 if hour == 2 else 50, hour))
    plant.publish("plant/pump 1/sensors", b"\xff{")
    plant.publish("plant/pump 1/sensors", '{"a": 1}')
    plant.publish("plant/pump 1/sensors", LINE.format('"broken"', 3))
    came = plant.wait_for(10)
    assert sorted(topic for topic, _ in came) == [
        *["dead"] * 3,
        *["out/pump 1"] * 4,
        *["out/pump 2"] * 3,
    ]
    letters = [body for topic, body in came if topic == "dead"]
    assert [letter["topic"] for letter in letters] == ["plant/pump 1/sensors"] * 3
    assert (letters[0]["payload"], letters[1]["payload"]) == ("\\xff{", '{"a": 1}')
    assert "It is not JSON" in letters[0]["error"]
    assert "The reading lacks b" in letters[1]["error"]
    assert 'a is "broken"' in letters[2]["error"]  # and missing in the reading
    stream = StreamModel(graph_path).create_stream()
    for hour, body in enumerate(body for topic, body in came if topic == "out/pump 1"):
        output = stream.step([[50, 50, 500, np.nan][hour], 3])
        assert (body["key"], body["time"]) == ("pump 1", f"2026-01-31T{hour:02d}:00")
        np.testing.assert_allclose(body["forecast"]["a"]["point"], output.forecast[:, 0], rtol=1e-4)
        assert [alert["channel"] for alert in body["alerts"]] == (["a"] if hour == 2 else [])
    assert bridge.end() == 0
    counts = "readings 7, streams 2, with an alert 2, unusable values taken as missing 1"
    assert counts in bridge.log.read_text()


def test_a_detector_sends_verdicts(
    detector_path: Path, sine: pd.DataFrame, plant: Plant, start: Callable[..., Bridge]
) -> None:
    bridge = start(graph=detector_path)
    readings = sine.iloc[:140].interpolate().round(3)
    readings.iloc[130] += 60
    for moment, (a, b) in zip(readings.index, readings.to_numpy(), strict=True):
        body = {"a": a, "b": b, "time": moment.isoformat()}
        plant.publish("plant/pump/sensors", json.dumps(body))
    came = plant.wait_for(len(readings))
    own = DetectorModel(detector_path).create_stream()
    for (topic, body), reading in zip(came, readings.to_numpy(), strict=True):
        verdict = own.step(reading)
        assert (topic, body["key"]) == ("out/pump", "pump")
        assert (body["status"], body["alarm"]) == (verdict.status, verdict.alarm)
        assert body["score"] == pytest.approx(verdict.score, abs=1e-3)
    assert next(row for row, (_, body) in enumerate(came) if body["alarm"]) == 130
    assert bridge.end() == 0


@pytest.mark.parametrize("broker", ["mqtts"], indirect=True)
def test_a_secure_broker_is_served_where_its_certificate_is_trusted(
    graph_path: Path, broker: RunningBroker, plant: Plant, start: Callable[..., Bridge]
) -> None:
    bridge = start()
    for hour in range(20):
        plant.publish("plant/pump 1/sensors", LINE.format(50 + hour, hour))
    came, stream = plant.wait_for(20), StreamModel(graph_path).create_stream()
    for hour, (_, body) in enumerate(came):
        points = stream.step([50 + hour, 3]).forecast[:, 0]
        np.testing.assert_allclose(body["forecast"]["a"]["point"], points, rtol=1e-4)
    assert bridge.end() == 0
    stranger = Bridge(graph_path, broker, is_trusting=False)
    try:
        wait_until(lambda: "certificate verify failed" in stranger.log.read_text(), what="refusal")
    finally:
        assert stranger.end() == 0
    assert "tried again in" in stranger.log.read_text()


def test_broker_that_comes_back(
    broker: RunningBroker, plant: Plant, start: Callable[..., Bridge]
) -> None:
    bridge = start()
    plant.publish("plant/pump/sensors", LINE.format(50, 0))
    plant.wait_for(1)
    broker.stop()
    wait_until(lambda: "no connection" in bridge.log.read_text(), what="word of it")
    broker.start()
    wait_until(plant.client.is_connected, what="connection")
    for hour in range(1, 20):
        plant.publish("plant/pump/sensors", LINE.format(50, hour))
        if len(plant.came) > 2:
            break
        time.sleep(0.5)
    times = [body["time"] for _, body in plant.wait_for(3)]
    assert times == sorted(set(times))
    assert bridge.end(signal.SIGINT) == 130
    assert "Traceback" not in bridge.log.read_text()


@needs_sessions
def test_killed_and_started_again(
    plant: Plant, start: Callable[..., Bridge], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    options = ["--snapshot", state, "--snapshot-every", 1, "--client-id", "test"]
    bridge = start(*options)
    for hour in range(3):
        plant.publish("plant/pump/sensors", LINE.format(50, hour))
    plant.wait_for(3)
    time.sleep(0.5)
    bridge.end(signal.SIGKILL)
    plant.publish("plant/pump/sensors", LINE.format(50, 3))  # nobody is there
    plant.came.clear()
    again = bridge.again()
    plant.publish("plant/pump/sensors", LINE.format(50, 4))
    wait_until(lambda: any("T04" in body.get("time", "") for _, body in plant.came), what="reading")
    # At least once: the last ones before the kill may come again, in the order of time.
    times = [body["time"] for topic, body in plant.came if topic == "out/pump"]
    assert times[-2:] == ["2026-01-31T03:00", "2026-01-31T04:00"]
    assert times == sorted(set(times))
    again.terminate()
    assert again.wait(WITHIN) == 0


@needs_sessions
def test_reading_that_comes_again_is_known_by_its_time(
    broker: RunningBroker, plant: Plant, start: Callable[..., Bridge], tmp_path: Path
) -> None:
    bridge = start("--snapshot", tmp_path / "state", "--client-id", "test")
    plant.publish("plant/pump/sensors", LINE.format(50, 0))
    plant.wait_for(1)
    assert bridge.end() == 0
    plant.publish("plant/pump/sensors", LINE.format(50, 0))
    # Another client of that name takes it, and is gone without a word.
    taken: list[object] = []
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, "test", clean_session=False, manual_ack=True
    )
    client.on_message = lambda *message: taken.append(message)
    client.connect("127.0.0.1", broker.port)
    wait_until(lambda: client.loop(0.1) or taken, what="message")
    client.socket().close()
    plant.came.clear()
    bridge.again()
    plant.publish("plant/pump/sensors", LINE.format(50, 1))
    ((topic, body),) = plant.wait_for(1)
    assert (topic, body["time"]) == ("out/pump", "2026-01-31T01:00")
    assert bridge.end() == 0
    assert bridge.log.read_text().endswith("readings 2, streams 1, repeated 1\n")


def test_retained_reading_is_old(plant: Plant, start: Callable[..., Bridge]) -> None:
    plant.publish("plant/pump/sensors", LINE.format(50, 0), retain=True)
    bridge = start()
    plant.publish("plant/pump/sensors", LINE.format(50, 1))
    ((_, body),) = plant.wait_for(1)
    assert body["time"] == "2026-01-31T01:00"
    assert bridge.end() == 0
    assert "retained 1" in bridge.log.read_text()


def test_broker_that_refuses_ends_the_command(
    tmp_path: Path, graph_path: Path, broker: RunningBroker
) -> None:
    broker.stop()
    closed = RunningBroker(tmp_path, is_open=False)
    closed.start()
    bridge = Bridge(graph_path, closed)
    try:
        assert bridge.process.wait(WITHIN) == 2
        assert "error: The broker refuses: Not authorized" in bridge.log.read_text()
    finally:
        bridge.process.kill()
        closed.stop()


@needs_sessions
def test_full_backlog_is_left_with_the_broker(plant: Plant, start: Callable[..., Bridge]) -> None:
    bridge = start("--backlog", 2)
    for hour in range(20):
        plant.client.publish("plant/pump/sensors", LINE.format(50, hour), qos=1)
    times = [body["time"] for _, body in plant.wait_for(20)]
    assert times == [f"2026-01-31T{hour:02d}:00" for hour in range(20)]
    assert bridge.end() == 0
    assert "left with the broker" in bridge.log.read_text()


@pytest.mark.parametrize(
    ("topic", "pattern", "key"),
    [
        ("plant/pump 1/sensors", "plant/+/sensors", "pump 1"),
        ("a/b/c", "+/b/+", "a/c"),
        ("plant/a/b", "plant/#", "a/b"),
        ("plant", "plant", ""),
    ],
)
def test_key_is_what_wildcards_stand_for(topic: str, pattern: str, key: str) -> None:
    assert key_of(topic, pattern=pattern) == key


def test_urls() -> None:
    assert Broker.from_url("mqtt://host") == Broker("host", 1883, False, None, None)
    secure = Broker.from_url("mqtts://me%40home:s%2Fx@[::1]:9000", user="x", password="y")
    assert secure == Broker("::1", 9000, True, "me@home", "s/x")
    assert Broker.from_url("mqtts://host", user="x", password="y")[1:] == (8883, True, "x", "y")
    for url in ("host", "http://host", "mqtt://", "mqtt://u:secret@host:port", "mqtt://host/topic"):
        with pytest.raises(ValueError, match="--mqtt") as caught:
            Broker.from_url(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--topic", "a/+"], "--mqtt needs --topic to read from and --publish"),
        (["--topic", "a/b", "--publish", "{key}"], "nothing names the streams"),
        (["--topic", "a/+", "--publish", "a/{key}"], "--publish a/{key} is within --topic a/+"),
        (
            ["--topic", "a/#", "--publish", "b", "--dead-letter", "a/x/y"],
            "--dead-letter a/x/y is within",
        ),
        (
            ["--topic", "a/+", "--publish", "b", "--strict", "-o", "x"],
            "leave out --output, --strict",
        ),
        (["--topic", "a", "--publish", "b", "--expire-after", "7d"], "a --topic with + or #"),
        (["--topic", "a/+", "--publish", "b", "--backlog", "0"], "--backlog must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, graph_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(graph_path), "--mqtt", "mqtt://localhost", *options]) == 2
    assert message in capsys.readouterr().err


def test_options_of_a_broker_need_one(graph_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", str(graph_path), "--topic", "a"]) == 2
    assert "without --mqtt there is no broker: leave out --topic" in capsys.readouterr().err.lower()


def test_the_example_watches_a_machine(broker: RunningBroker) -> None:
    path = Path(__file__).parents[2] / "examples/watch_machine.py"
    spec = spec_from_file_location("watch_machine", path)
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    answers = example.watch(broker.url, steps=20)
    assert len(answers) == example.HOURS
    jump = answers[example.JUMP_AT]
    assert jump["alerts"][0]["channel"] == example.CHANNEL
    assert jump["alerts"][0]["value"] > jump["alerts"][0]["above"]
