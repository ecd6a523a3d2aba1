"""The command line: declares the commands; what they do is in modules of their own.

Nothing heavy is imported before the command that needs it: `stream` and `inspect` run where there
is neither torch nor pandas.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from xlstm_ts import __version__
from xlstm_ts.exceptions import XLSTMError

EPILOG = (
    "Exit codes: 0 done (also after SIGTERM, and where the reader of the output has gone), 2 where "
    "the input cannot be used (the reason is on standard error), 130 after Ctrl-C."
)
# Plain help: it is the same in a terminal, in a pipe and in documentation.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
)

Graph = Annotated[Path, typer.Argument(help="The step graph, written by `export`.")]
Model = Annotated[Path, typer.Argument(help="The forecaster, written by `fit`.")]
Time = Annotated[
    str | None, typer.Option(help="Column of the time; by default the first of dates.")
]
Series = Annotated[
    str | None, typer.Option("--id", help="Column that names the series of a row, where many are.")
]


class Form(str, Enum):
    """What lines are."""

    auto = "auto"
    json = "json"
    csv = "csv"


class Output(str, Enum):
    """What forecasts are written as."""

    json = "json"
    csv = "csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, with the reason on stderr where it is not 0."""
    try:
        app(arguments, prog_name="xlstm-ts")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except (XLSTMError, ValueError, OSError, ImportError) as err:
        _say(f"error: {err}")
        return 2
    return 0


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def xlstm_ts(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Forecast time series and streams: train in parallel, serve one reading at a time."""


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="CSV file with a header, one row a reading.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the forecaster.")],
    time: Time = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Column to forecast, may be repeated; by default all of numbers."),
    ] = None,
    series: Series = None,
    past: Annotated[
        list[str] | None, typer.Option(help="Covariate that is known up to now, may be repeated.")
    ] = None,
    known: Annotated[
        list[str] | None, typer.Option(help="Covariate that is known ahead too, may be repeated.")
    ] = None,
    calendar: Annotated[
        str | None, typer.Option(help="Fields of the time to learn from, such as hour,dayofweek.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Readings to forecast [24].")] = None,
    quantiles: Annotated[str | None, typer.Option(help="Levels to forecast [0.1,0.5,0.9].")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training [1000].")] = None,
    context: Annotated[int | None, typer.Option(help="Readings that a forecast sees.")] = None,
    patch: Annotated[int | None, typer.Option(help="Readings in one token; try a season.")] = None,
    blocks: Annotated[
        str | None, typer.Option(help="The stack of blocks, m (mLSTM) and s (sLSTM) [mm].")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Forecast each from itself or from all: independent, mixed.")
    ] = None,
    transform: Annotated[
        str | None, typer.Option(help="log or log1p, for readings that vary by percent.")
    ] = None,
    random_state: Annotated[int, typer.Option(help="Makes a fit repeatable.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of any other parameter of XLSTMForecaster."),
    ] = None,
) -> None:
    """Train a forecaster on a CSV file.

    Ctrl-C ends the training; the best weights so far are saved.

    \b
    Example:
      xlstm-ts fit data.csv --time ds --target y --horizon 24 -o model
      xlstm-ts fit sales.csv --id shop --target sold --known promo \\
          --calendar dayofweek --set d_model=32 -o model
    """
    from xlstm_ts import modelling

    named = {
        "horizon": horizon,
        "max_steps": steps,
        "context_length": context,
        "patch_length": patch,
        "blocks": blocks,
        "channels": channels,
        "transform": transform,
        "quantiles": None if quantiles is None else _levels(quantiles),
        "calendar": None if calendar is None else tuple(calendar.split(",")),
        "random_state": random_state,
        "verbose": 1,
    }
    parameters = {name: value for name, value in named.items() if value is not None}
    columns = modelling.Columns(
        time=time, series=series, targets=target or (), past=past or (), known=known or ()
    )
    parameters |= modelling.read_parameters(settings or ())
    modelling.fit_file(
        str(data), columns=columns, parameters=parameters, output=output, say=typer.echo
    )


@app.command()
def export(
    model: Model,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the graph (ONNX).")],
    series: Annotated[
        str | None, typer.Option(help="Of many series: the one whose units the graph is to have.")
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(help="CHANNEL=UNIT, for each of the channels; readers of the file see it."),
    ] = None,
) -> None:
    """Write a forecaster as a step graph, checked against the model first.

    \b
    Example:
      xlstm-ts export model -o model.onnx --unit load=kW
    """
    from xlstm_ts import modelling

    units = _pairs(unit or (), called="--unit", example="load=kW")
    modelling.export_file(model, output, series=series, units=units, say=typer.echo)


@app.command()
def predict(
    model: Model,
    data: Annotated[
        Path | None,
        typer.Argument(help="CSV file to go on from; by default the end of the training data."),
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file; by default standard output.")
    ] = None,
    time: Time = None,
    series: Series = None,
    coverage: Annotated[
        float | None, typer.Option(help="Add bounds that hold such a share of the readings.")
    ] = None,
) -> None:
    """Forecast the next readings, as CSV: one row a time and channel.

    Rows at the end of the file that hold nothing but covariates are times ahead.

    \b
    Example:
      xlstm-ts predict model newer.csv --coverage 0.9 -o forecast.csv
    """
    from xlstm_ts import modelling

    columns = modelling.Columns(time=time, series=series)
    source = None if data is None else str(data)
    text = modelling.predict_file(model, data=source, columns=columns, coverage=coverage)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)


@app.command()
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
    static: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE that is static of the stream, where the model asks for it."),
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
) -> None:
    """Take readings line by line; give a forecast, and alerts, for each at once.

    A JSON line is an object with a number, or null where it is missing, for each channel and each
    covariate by name; `inspect` shows one. A CSV has the same by its header. A line that cannot be
    used is reported with its number, counted, and left out.

    An alert says that a reading lies outside of the outermost levels that were forecast for it one
    reading before. Of levels 0.1 and 0.9 each fifth does: give a margin, or fit with wider levels.

    With --snapshot a stream goes on where it was, whatever killed it. From a file to a file (-o)
    nothing is lost or given twice: what was written after the last snapshot is cut off and
    computed again, to the bit. To a pipe it is given again: drop lines whose `line` you have. From
    a pipe the input must be given again from its start, and what was read is skipped; with --live
    it goes on with what comes, and readings since the last snapshot are missing in the state.

    Ctrl-C, SIGTERM and a closed output end a stream; it then keeps its state, but for a closed
    output, where the snapshot before stands and the readings after it are given again.

    \b
    Example:
      tail -f sensor.jsonl | xlstm-ts stream model.onnx --alert-outside 0.5
      xlstm-ts stream model.onnx readings.csv --key sensor --snapshot state -o out.jsonl
    """
    from xlstm_ts.pipes import PipeOptions, run_stream

    options = PipeOptions(
        model=model,
        data=data,
        output=output,
        form=form.value,
        key=key,
        time=time,
        static=_static(static or ()),
        margin=alert_outside,
        only_alerts=only_alerts,
        is_csv=written is Output.csv,
        snapshot=snapshot,
        every=snapshot_every,
        is_live=live,
        is_strict=strict,
    )
    code = run_stream(options, say=_say)
    if code:
        raise typer.Exit(code)


@app.command()
def inspect(
    model: Graph,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what goes into a step graph and what comes out, in words.

    \b
    Example:
      xlstm-ts inspect model.onnx
    """
    from xlstm_ts.inspection import describe, in_words

    facts = describe(model)
    typer.echo(json.dumps(facts, indent=2) if as_json else "\n".join(in_words(facts)))


@app.command()
def demo(
    *,
    data: Annotated[
        str | None, typer.Option(help="CSV file; without one a machine is simulated.")
    ] = None,
    time: Time = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Column to forecast, may be repeated; by default all of numbers."),
    ] = None,
    horizon: Annotated[int, typer.Option(help="Readings to forecast.")] = 24,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 300,
    out: Annotated[Path, typer.Option(help="Folder for the graph and the picture.")] = Path("demo"),
) -> None:
    """Fit, compare, export, stream and draw, on a simulated machine or a CSV file.

    \b
    Example:
      xlstm-ts demo --data data.csv --time date --target OT
    """
    from xlstm_ts.demo import DemoOptions, run_demo

    run_demo(
        DemoOptions(out=out, data=data, time=time, target=target, horizon=horizon, steps=steps)
    )


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError as err:
        raise ValueError(f"--quantiles takes levels such as 0.1,0.5,0.9; got {text!r}.") from err


def _pairs(given: Sequence[str], *, called: str, example: str) -> dict[str, str]:
    """Return options of the form NAME=VALUE."""
    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"{called} takes NAME=VALUE such as {example}; got {one!r}.")
        pairs[name] = value
    return pairs


def _static(given: Sequence[str]) -> dict[str, Any]:
    """Return what is static: numbers where they are some, otherwise text."""
    static: dict[str, Any] = _pairs(given, called="--static", example="site=north")
    for name, text in static.items():
        try:
            static[name] = float(text)
        except ValueError:
            continue
    return static


if __name__ == "__main__":
    sys.exit(main())
