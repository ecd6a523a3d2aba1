"""The command `stream`: from a file, a pipe or a broker, to where the forecasts are wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from xlstm_ts.cli.stopping import ended_by_interrupt
from xlstm_ts.cli.wording import for_command_line

Graph = Annotated[Path, typer.Argument(help="The step graph, written by `export`.")]
BACKLOG = 1000
UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
USER, PASSWORD = "XLSTM_TS_MQTT_USER", "XLSTM_TS_MQTT_PASSWORD"


class Form(str, Enum):
    """What lines are."""

    auto = "auto"
    json = "json"
    csv = "csv"


class Output(str, Enum):
    """What forecasts are written as."""

    json = "json"
    csv = "csv"


def stream(
    model: Graph,
    data: Annotated[
        Path | None, typer.Argument(help="File to read; by default standard input.")
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; by default standard output.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--input", help="JSON lines, or CSV with a header.")
    ] = Form.auto,
    written: Annotated[
        Output, typer.Option("--output-format", help="JSON lines, or flat CSV.")
    ] = Output.json,
    key: Annotated[
        str | None, typer.Option(help="Field that names the stream of a reading, where many are.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Field of the time, then needed; by default `time`, if any.")
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(help="How times are written, such as %d/%m/%Y %H:%M; needed for these."),
    ] = None,
    static: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE that is static of the stream, where the model asks for it."),
    ] = None,
    expire_after: Annotated[
        str | None,
        typer.Option(
            help="With --key: forget streams that were silent for 30min, 12h, 7d or the like, by "
            "the times of the readings."
        ),
    ] = None,
    alert_outside: Annotated[
        float | None,
        typer.Option(help="Alert readings so many widths outside of the band forecast for them."),
    ] = None,
    only_alerts: Annotated[
        bool, typer.Option("--only-alerts", help="Write nothing but readings with an alert.")
    ] = False,
    snapshot: Annotated[
        Path | None, typer.Option(help="File that keeps the state; go on from it if it is there.")
    ] = None,
    snapshot_every: Annotated[int, typer.Option(help="Lines between two snapshots.")] = 1000,
    live: Annotated[
        bool,
        typer.Option("--live", help="After a restart the input is not given again: skip none."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with an error at a line that cannot be used.")
    ] = False,
    mqtt: Annotated[
        str | None, typer.Option(help="URL of a broker to read from and write to, mqtt(s)://host.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic to read; what its + stands for names the stream.")
    ] = None,
    publish: Annotated[
        str | None, typer.Option(help="Topic to write to; {key} is the name of the stream.")
    ] = None,
    dead_letter: Annotated[
        str | None, typer.Option(help="Topic for messages that cannot be used, with the reason.")
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option(help="Name under which the broker keeps messages, one for each process."),
    ] = None,
    backlog: Annotated[
        int | None, typer.Option(help="Messages that may wait to be served [1000].")
    ] = None,
) -> None:
    """Take readings line by line; give a forecast, and alerts, for each at once.

    A JSON line is an object with a number, or null where it is missing, for each channel and each
    covariate by name; `inspect` shows one. A CSV has the same by its header. A line that cannot be
    read is reported with its number, counted, and left out; a value that is no number is reported
    once for its field, counted, and taken as missing. So are stamps that are left out.

    An alert says that a reading lies outside of the outermost levels that were forecast for it one
    reading before. Of levels 0.1 and 0.9 each fifth does: give a margin, or fit with wider levels.

    With --expire-after a stream that is silent for so long is forgotten, and begins anew should it
    come back. The clock of the machine has no say, and a single stream that tells a wrong time
    has none over the others; each reading then needs its time.

    With --snapshot a stream goes on where it was, whatever killed it. From a file to a file (-o)
    nothing is lost or given twice: what was written after the last snapshot is cut off and
    computed again, to the bit. To a pipe it is given again: drop lines whose `line` you have. From
    a pipe the input must be given again from its start, and what was read is skipped; with --live
    it goes on with what comes, and readings since the last snapshot are missing in the state.

    Ctrl-C, SIGTERM and a closed output end a stream; it then keeps its state, but for a closed
    output, where the snapshot before stands and the readings after it are given again.

    With --mqtt messages are JSON lines, and everything is done at least once: a message is
    acknowledged after the broker has its forecast. A process that was killed gets again what it had
    not acknowledged, and knows it by its time, if it has one. While it is away the broker keeps
    what comes; a broker that is away is tried again. What finds --backlog full is left with the
    broker and fetched later. The state is that of the last snapshot: with --snapshot-every 1 of all
    readings that were acknowledged. User and password may stand in the URL or in the environment,
    as XLSTM_TS_MQTT_USER and XLSTM_TS_MQTT_PASSWORD. mqtts:// trusts the system's certificates, or
    those of SSL_CERT_FILE.

    \b
    Example:
      tail -f sensor.jsonl | xlstm-ts stream model.onnx --alert-outside 0.5
      xlstm-ts stream model.onnx readings.csv --key sensor --snapshot state -o out.jsonl
      xlstm-ts stream model.onnx --mqtt mqtt://localhost --topic 'plant/+/sensors' \\
          --publish 'plant/{key}/alerts' --dead-letter plant/unusable --snapshot state
    """
    check_output(output, model, data, snapshot)
    check_output(snapshot, model, data, option="--snapshot")
    beside: dict[str, Any] = {
        "model": model,
        "key": key,
        "time": time,
        "time_format": None if time_format is None else _checked_format(time_format),
        "static": _static(static or ()),
        "margin": alert_outside,
        "expire_after": None if expire_after is None else _duration(expire_after),
        "only_alerts": only_alerts,
        "snapshot": snapshot,
        "every": snapshot_every,
    }
    of_lines = {
        "a file to read": data is not None,
        "--output": output is not None,
        "--input": form is not Form.auto,
        "--output-format": written is not Output.json,
        "--live": live,
        "--strict": strict,
    }
    of_broker = {
        "--topic": topic, "--publish": publish, "--dead-letter": dead_letter,
        "--client-id": client_id, "--backlog": backlog,
    }  # fmt: skip
    if mqtt is None:
        _refuse_any(of_broker, because="without --mqtt there is no broker")
        with ended_by_interrupt():
            from xlstm_ts.cli.pipes import PipeOptions, run_stream

        pipe = PipeOptions(
            **beside,
            data=data,
            output=output,
            form=form.value,
            is_csv=written is Output.csv,
            is_live=live,
            is_strict=strict,
        )
        code = run_stream(pipe, say=say_aside)
    else:
        _refuse_any(of_lines, because="with --mqtt all goes through the broker, as JSON")
        if topic is None or publish is None:
            raise ValueError("--mqtt needs --topic to read from and --publish to write to.")
        with ended_by_interrupt():
            from xlstm_ts.cli.mqtt import MqttOptions, run_mqtt
            from xlstm_ts.cli.mqtt_link import Broker

        user, password = os.environ.get(USER), os.environ.get(PASSWORD)
        bridge = MqttOptions(
            **beside,
            broker=Broker.from_url(mqtt, user=user, password=password),
            topic=topic,
            publish=publish,
            dead_letter=dead_letter,
            name=client_id,
            backlog=BACKLOG if backlog is None else backlog,
        )
        code = run_mqtt(bridge, say=say_aside)
    if code:
        raise typer.Exit(code)


def _refuse_any(given: Mapping[str, object], *, because: str) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise ValueError(f"{because[0].upper()}{because[1:]}: leave out {', '.join(names)}.")


def check_output(output: Path | None, *read: Path | None, option: str = "-o") -> None:
    """Refuse to write over what is read."""
    for one in read:
        if output is not None and one is not None and output.resolve() == one.resolve():
            raise ValueError(f"{option} {output} is a file that is read: give it another name.")


def read_pairs(given: Sequence[str], *, called: str, example: str) -> dict[str, str]:
    """Return options of the form NAME=VALUE."""
    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"{called} takes NAME=VALUE such as {example}; got {one!r}.")
        pairs[name] = value
    return pairs


def _duration(text: str) -> timedelta:
    found = re.fullmatch(rf"([1-9]\d{{0,8}})({'|'.join(UNITS)})", text, re.ASCII)
    if found is None:
        raise ValueError(f"--expire-after takes a time such as 30min, 12h or 7d; got {text!r}.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _checked_format(form: str) -> str:
    try:
        datetime.strptime(datetime.now().strftime(form), form)
    except ValueError as err:
        raise ValueError(f"--time-format takes one such as %d/%m/%Y %H:%M; {err}.") from err
    return form


def say_aside(text: str) -> None:
    """Say something beside what a command gives."""
    typer.echo(for_command_line(text), err=True)


def _static(given: Sequence[str]) -> dict[str, Any]:
    """Return what is static: numbers where they are some, otherwise text."""
    static: dict[str, Any] = read_pairs(given, called="--static", example="site=north")
    for name, text in static.items():
        try:
            static[name] = float(text)
        except ValueError:
            continue
    return static
