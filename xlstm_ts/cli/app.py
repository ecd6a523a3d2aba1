"""The command line: declares the commands; what they do is in modules of their own.

Nothing heavy is imported before the command that needs it: `stream` and `inspect` run where there
is neither torch nor pandas.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xlstm_ts import __version__
from xlstm_ts.cli.stopping import INTERRUPTED, ended_by_interrupt
from xlstm_ts.cli.stream import Graph, check_output, read_pairs, say_aside, stream
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

Model = Annotated[Path, typer.Argument(help="The forecaster, written by `fit`.")]
Time = Annotated[
    str | None, typer.Option(help="Column of the time; by default the first of dates.")
]
Series = Annotated[
    str | None, typer.Option("--id", help="Column that names the series of a row, where many are.")
]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, with the reason on stderr where it is not 0."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(arguments, prog_name="xlstm-ts")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:  # before typer looks out for it
        return INTERRUPTED
    except (XLSTMError, ValueError, OSError, ImportError) as err:
        say_aside(f"error: {_told(err)}")
        return 2
    return 0


def _told(err: Exception) -> str:
    """Return what went wrong; what the system says of a file, as a sentence that names it."""
    if isinstance(err, FileNotFoundError) and err.filename is not None:
        return f"There is no file {err.filename}."
    if isinstance(err, OSError) and err.filename is not None:
        return f"{err.filename} cannot be used: {err.strerror}."
    return str(err)


def _show_warning(message: Warning | str, *_: object, **beside: object) -> None:
    say_aside(f"warning: {message}")


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
    with ended_by_interrupt():
        from xlstm_ts.cli import modelling

    check_output(output, data)
    named = {
        "horizon": horizon,
        "max_steps": steps,
        "context_length": context,
        "patch_length": patch,
        "blocks": blocks,
        "channels": channels,
        "target_transform": transform,
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
    with ended_by_interrupt():
        from xlstm_ts.cli import modelling

    check_output(output, model)
    units = read_pairs(unit or (), called="--unit", example="load=kW")
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
    with ended_by_interrupt():
        from xlstm_ts.cli import modelling

    check_output(output, model, data)
    columns = modelling.Columns(time=time, series=series)
    source = None if data is None else str(data)
    text = modelling.predict_file(model, data=source, columns=columns, coverage=coverage)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)


app.command()(stream)


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
    with ended_by_interrupt():
        from xlstm_ts.cli.inspection import describe, in_words

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
    with ended_by_interrupt():
        from xlstm_ts.cli.demo import DemoOptions, run_demo

    run_demo(
        DemoOptions(out=out, data=data, time=time, target=target, horizon=horizon, steps=steps)
    )


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError as err:
        raise ValueError(f"--quantiles takes levels such as 0.1,0.5,0.9; got {text!r}.") from err
