"""What the command line does with a forecaster and files: fit, export, predict."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.cli.tables import Table, read_names, read_table
from xlstm_ts.cli.wording import for_command_line
from xlstm_ts.exceptions import InterruptedWarning, SeriesError, SeriesWarning
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.files import check_folder
from xlstm_ts.forecaster import XLSTMForecaster

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of a CSV file are.

    Parameters
    ----------
    time : str, optional
        The time; by default the first of dates.
    series : str, optional
        The name of the series that a row is of, where there are many.
    targets : sequence of str
        What is forecast; by default all of numbers.
    past, known : sequence of str
        Covariates: known up to now, and for the next readings too.
    """

    time: str | None = None
    series: str | None = None
    targets: Sequence[str] = ()
    past: Sequence[str] = ()
    known: Sequence[str] = ()


def read_parameters(given: Sequence[str]) -> dict[str, Any]:
    """Return parameters of a forecaster that came as NAME=VALUE, where a value may be JSON.

    Raises
    ------
    ValueError
        Where there is no such parameter; the message lists those that there are.
    """
    known = sorted(XLSTMForecaster().get_params())
    parameters: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set takes NAME=VALUE with one of {', '.join(known)}; got {one!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parameters[name] = tuple(value) if isinstance(value, list) else value
    return parameters


def fit_file(
    data: str, *, columns: Columns, parameters: Mapping[str, Any], output: Path, say: Say
) -> None:
    """Fit a forecaster to a CSV file, save it, and say how well it does.

    Raises
    ------
    SeriesError
        Where the file cannot be used.
    ValueError
        Where a parameter is out of range.
    KeyboardInterrupt
        After Ctrl-C, once the best weights so far are saved.
    """
    check_folder(output)
    forecaster = XLSTMForecaster(**{"known_future": tuple(columns.known), **parameters})
    table, X = _read(data, columns)
    y = table.readings
    _say_table(table, say)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecaster.fit(y, X)
    for warning in caught:
        say(for_command_line(f"warning: {warning.message}"))
    forecaster.save(output)
    say(f"season     {forecaster.season_length_} readings")
    say(f"context    {forecaster.context_length_} readings")
    losses = [one.validation_loss for one in forecaster.history_]
    losses = [loss for loss in losses if not math.isnan(loss)]
    if losses:
        say(f"loss       {min(losses):.4g} on the validation tail, best of {len(losses)}")
    say(for_command_line(f"skill      {_skill(forecaster, y, X)}"))
    say(f"model      {output}")
    if any(issubclass(warning.category, InterruptedWarning) for warning in caught):
        raise KeyboardInterrupt


def export_file(
    model: Path, output: Path, *, series: str | None, units: Mapping[str, str], say: Say
) -> None:
    """Write the step graph of a saved forecaster, and say how close to the model it is.

    Raises
    ------
    ExportError
        Where graph and model differ.
    ValueError
        Where a series or a unit is asked for that is not there.
    """
    check_folder(output)
    forecaster = XLSTMForecaster.load(model)
    if series is not None and forecaster.context_.is_single:
        raise ValueError("The model is of one series: leave out --series.")
    parity = export_onnx(forecaster, output, series=series, units=units or None)
    say(f"graph      {output}, {output.stat().st_size / 1024:.0f} kB")
    say(
        f"parity     worst error {max(parity.random, parity.real):.0e} of a channel's scale over "
        f"{parity.steps} random and {parity.steps} real readings"
    )


def predict_file(
    model: Path,
    *,
    data: str | None,
    columns: Columns,
    coverage: float | None,
) -> str:
    """Return the forecast of a saved forecaster as CSV, one row a series, time and channel.

    Raises
    ------
    SeriesError
        Where the file cannot be used.
    ValueError
        Where `coverage` is out of range.
    """
    forecaster = XLSTMForecaster.load(model)
    beside = forecaster.covariates_
    if data is None:
        if beside.columns and (beside.named("past") or beside.named("known")):
            named = ", ".join([*beside.named("past"), *beside.named("known")])
            raise SeriesError(f"The model needs {named} as well: give a CSV file with them.")
        y, X = _context(forecaster), None
    else:
        time, series = _remembered(forecaster, data)
        columns = Columns(
            time=columns.time or time,
            series=columns.series or series,
            targets=forecaster.channels_,
            past=beside.named("past"),
            known=beside.named("known"),
        )
        table, X = _read(data, columns)
        y = table.readings
    # What a wide frame gives is a wide frame.
    parts: list[Any] = [forecaster.predict_quantiles(y, X)]
    if coverage is not None:
        parts.append(forecaster.predict_interval(y, X, coverage=coverage))
    point: Any = forecaster.predict(y, X)
    return _as_csv(point, parts)


def _read(data: str, columns: Columns) -> tuple[Table, pd.DataFrame | None]:
    """Return the readings of a file, and the covariates where some are named.

    Rows at the end that hold nothing but covariates are times ahead, and no readings.
    """
    beside = [*columns.past, *columns.known]
    if beside and not columns.targets:
        raise ValueError("With --past or --known name what to forecast, by --target.")
    table = read_table(
        data,
        time=columns.time,
        targets=[*columns.targets, *beside] or None,
        series=columns.series,
    )
    if not beside:
        return table, None
    readings = table.readings[list(columns.targets)]
    keys = [0] * len(readings) if columns.series is None else readings.index.get_level_values(0)
    came = readings.notna().any(axis=1)
    is_there = came[::-1].groupby(keys[::-1]).cummax()[::-1]
    return table._replace(readings=readings[is_there]), table.readings[beside]


def _say_table(table: Table, say: Say) -> None:
    y = table.readings
    say(f"data       {len(y)} rows of {', '.join(map(str, y.columns))}; {table.time}")
    if table.left_out:
        reasons = "; ".join(f"{column!r} {fault}" for column, fault in table.left_out.items())
        say(f"left out   {reasons}")


def _skill(forecaster: XLSTMForecaster, y: pd.DataFrame, X: pd.DataFrame | None) -> str:
    """Return the skill over seasonal-naive on the validation tail, or why there is none."""
    if forecaster.pooled_:
        return "not judged for many series: see xlstm_ts.backtest"
    tail = round(len(y) * forecaster.validation_fraction)
    before = max(forecaster.context_length_, forecaster.season_length_)
    if not tail:
        return "not judged without a validation tail"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeriesWarning)  # what it says of the data was said
            skill = forecaster.score(y.iloc[-(tail + before) :], X)
    except SeriesError as err:
        return f"not judged: {err}"
    return f"{skill:.2f} on the validation tail (1 is perfect, 0 is no better than seasonal-naive)"


def _remembered(forecaster: XLSTMForecaster, data: str) -> tuple[str | None, str | None]:
    """Return the columns of the time and of the names of series, if a file has those of the fit."""
    panel, there = forecaster.context_, read_names(data)
    names = [panel.longest.index.name, None if panel.is_single else panel.like.index.names[0]]
    time, series = (str(name) if name in there else None for name in names)
    return time, series


def _context(forecaster: XLSTMForecaster) -> pd.DataFrame:
    """Return what a forecaster goes on from, as a wide frame whatever it was fitted to."""
    panel = forecaster.context_
    frames = {
        key: pd.DataFrame(one.values, one.index, list(panel.channels))
        for key, one in panel.series.items()
    }
    return frames[None] if panel.is_single else pd.concat(frames, names=panel.like.index.names)


def _as_csv(point: pd.DataFrame, parts: Sequence[pd.DataFrame]) -> str:
    """Return wide forecasts as a long table, with a column for each level and bound."""
    names = [str(name) for name in point.index.names[:-1]]
    if len(names) == 1:
        names = ["series"]
    rows = np.repeat(np.arange(len(point)), point.shape[1])
    labels = point.index.to_frame(index=False).set_axis([*names, "time"], axis=1)
    table = labels.iloc[rows].copy()
    table["channel"] = np.tile(point.columns, len(point))
    table["forecast"] = point.to_numpy().reshape(-1)
    for part in parts:
        for level in part.columns.unique(1):
            name = level if isinstance(level, str) else f"q{level:g}"
            table[name] = part.xs(level, axis=1, level=1).to_numpy().reshape(-1)
    return table.to_csv(index=False, lineterminator="\n")
