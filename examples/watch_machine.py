"""Watch a live machine through a broker: readings go in as messages, alerts come out.

Start a broker, `mosquitto` say, then `python examples/watch_machine.py mqtt://localhost`. It trains
a model on a simulated machine, starts `xlstm-ts stream` between two topics, publishes two days of
the machine, in which its load sensor jumps, and prints each alert that comes back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.onnx import export_onnx

CHANNEL, HOURS, JUMP_AT = "load_pct", 48, 40
WAIT = 60.0  # seconds


def watch(url: str, *, steps: int) -> list[dict[str, object]]:
    """Run the machine, and return what the stream published about it."""
    y = make_sensor_stream(1000, n_faults=0, missing=0, random_state=0).clean[[CHANNEL]]
    live = y[-HOURS:].copy()
    live.iloc[JUMP_AT:] += 60
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        forecaster = XLSTMForecaster(6, patch_length=1, context_length=96, max_steps=steps)
        export_onnx(forecaster.set_params(d_model=16, random_state=0).fit(y[:-HOURS]), model)
        return _serve(url, model, [(time, float(value)) for time, value in live[CHANNEL].items()])


def _serve(url: str, model: Path, readings: list[tuple[object, float]]) -> list[dict[str, object]]:
    answers: list[dict[str, object]] = []
    is_ready, is_done = threading.Event(), threading.Event()

    def take(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        answers.append(json.loads(message.payload))
        is_ready.set()
        if len(answers) > len(readings):
            is_done.set()

    place = urlsplit(url)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = take
    client.connect(place.hostname or "localhost", place.port or 1883)
    client.subscribe("plant/+/forecasts", qos=1)
    client.loop_start()
    command = [
        sys.executable, "-m", "xlstm_ts", "stream", str(model), "--mqtt", url,
        "--topic", "plant/+/sensors", "--publish", "plant/{key}/forecasts", "--alert-outside", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        # Until the stream has subscribed its messages go nowhere: a machine of its own asks.
        while not is_ready.wait(0.5) and process.poll() is None:
            client.publish("plant/knock/sensors", json.dumps({CHANNEL: 0.0}), qos=1)
        del answers[1:]
        for time, value in readings:
            text = json.dumps({CHANNEL: value, "time": str(time)})
            client.publish("plant/machine/sensors", text, qos=1)
        is_done.wait(WAIT)
    finally:
        process.terminate()
        process.wait()
        client.loop_stop()
    return [answer for answer in answers if answer.get("key") == "machine"]


def main() -> None:
    """Print the alerts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the broker, such as mqtt://localhost")
    parser.add_argument("--steps", type=int, default=100, help="steps of the training")
    options = parser.parse_args()
    try:
        answers = watch(options.url, steps=options.steps)
    except ConnectionRefusedError as err:
        raise SystemExit(f"No broker answers at {options.url}: start one first.") from err
    print(f"{len(answers)} readings served")
    for answer in answers:
        for alert in answer.get("alerts") or []:  # type: ignore[attr-defined]
            print(answer["time"], alert)


if __name__ == "__main__":
    main()
