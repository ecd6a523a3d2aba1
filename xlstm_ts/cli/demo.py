"""The demo: the whole line once, on a simulated machine or a CSV file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from xlstm_ts.cli.tables import Table, read_table
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.evaluation import rolling_forecasts, seasonal_naive, targets
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.frames import read_panel
from xlstm_ts.panels import Floats
from xlstm_ts.plotting import ForecastDisplay
from xlstm_ts.streaming import StreamModel

HELD_OUT = 0.2


class Streamed(NamedTuple):
    """The forecasts of a stream at every reading of the held-out part, and what each took."""

    forecasts: Floats
    seconds: Floats


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What a demo is to run on.

    Parameters
    ----------
    out : Path
        Folder for `model.onnx` and `forecast.png`.
    data : str, optional
        A CSV file; without one a machine is simulated.
    time : str, optional
        Its column of the time; by default the first of dates.
    target : sequence of str, optional
        Its columns to forecast; by default all of numbers.
    horizon, steps : int
        Readings to forecast, and steps of training.
    """

    out: Path
    data: str | None = None
    time: str | None = None
    target: Sequence[str] | None = None
    horizon: int = 24
    steps: int = 300


def run_demo(options: DemoOptions) -> None:
    """Fit, compare with seasonal-naive, export, stream the held-out part, draw."""
    torch.set_num_threads(1)  # at this size more threads wait for one another
    table = _read(options)
    panel = read_panel(table.readings, name=options.data or "y")  # all of it, before any work
    y = pd.DataFrame(panel.longest.values, panel.longest.index, panel.channels)
    length = round((1 - HELD_OUT) * len(y))
    if len(y) - length <= options.horizon:
        raise SeriesError(
            f"{len(y)} rows leave {len(y) - length} to test on, too few for a horizon of "
            f"{options.horizon}; give more rows or a smaller --horizon."
        )
    _print_data(table, y, length=length)
    with _folder(options.out) as out:
        _run(options, y, length=length, out=out)


def _run(options: DemoOptions, y: pd.DataFrame, *, length: int, out: Path) -> None:
    history, held_out = y.iloc[:length], y.iloc[length:]
    forecaster = XLSTMForecaster(
        options.horizon, max_steps=options.steps, random_state=0, verbose=1
    ).fit(history)
    origins = np.arange(length + 1, len(y) - options.horizon + 1)
    truth = targets(y.to_numpy(np.float64), origins=origins, horizon=options.horizon)
    _print_errors(forecaster, y, origins=origins, truth=truth)
    graph = out / "model.onnx"
    parity = export_onnx(forecaster, graph)
    size = graph.stat().st_size / 1024
    print(f"export     {graph}, {size:.0f} kB, worst error {max(parity.random, parity.real):.0e}")
    streamed = _stream(graph, history=history, held_out=held_out)
    median, p99 = np.percentile(streamed.seconds * 1e6, [50, 99])
    print(f"stream     {len(held_out)} readings, median {median:.0f} µs, p99 {p99:.0f} µs each")
    mean = np.nanmean(np.abs(streamed.forecasts[: len(truth)] - truth), (0, 1))
    print("           MAE of the streamed forecasts", _by_channel(y, mean))
    picture = out / "forecast.png"
    _draw(forecaster, history, held_out, picture)
    print(f"picture    {picture}")


def _read(options: DemoOptions) -> Table:
    if options.data:
        return read_table(options.data, time=options.time, targets=options.target)
    if options.time or options.target:
        raise ValueError("--time and --target name columns of a CSV file; give it by --data.")
    stream = make_sensor_stream(n_faults=5, fault_free=1 - HELD_OUT, random_state=0)
    return Table(stream.readings, "a simulated machine", {})


def _print_data(table: Table, y: pd.DataFrame, *, length: int) -> None:
    print(f"data       {table.time}: {y.index[0]} to {y.index[-1]}")
    print(
        f"           {len(y)} readings of {', '.join(y.columns)}; the last {len(y) - length} "
        "held out"
    )
    if table.left_out:
        reasons = "; ".join(f"{column!r} {fault}" for column, fault in table.left_out.items())
        print(f"left out   {reasons}")


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Make a folder and its parents; those that are still empty afterwards go again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _print_errors(
    forecaster: XLSTMForecaster, y: pd.DataFrame, *, origins: NDArray[np.int64], truth: Floats
) -> None:
    """Print the mean absolute error on the held-out part beside seasonal-naive."""
    values, horizon = y.to_numpy(np.float64), forecaster.horizon
    forecast = rolling_forecasts(
        forecaster.model_, values, origins=origins, context_length=forecaster.context_length_
    )[..., forecaster.model_.config.median]
    season = forecaster.season_length_
    naive = seasonal_naive(values, origins=origins, horizon=horizon, season=season)
    ours, theirs = (np.nanmean(np.abs(guess - truth), (0, 1)) for guess in (forecast, naive))
    print(f"error      MAE over {len(origins)} origins, horizon {horizon}, season {season}")
    print("           xLSTM          ", _by_channel(y, ours))
    print("           seasonal-naive ", _by_channel(y, theirs))
    print("           ratio          ", _mean_ratio(y, ours, theirs))


def _mean_ratio(y: pd.DataFrame, ours: Floats, theirs: Floats) -> str:
    """Return the mean ratio of the errors over the channels in which the second is any."""
    scored = theirs > 0
    flat = ", ".join(y.columns[~scored])
    if not scored.any():
        return f"none: seasonal-naive does not err in {flat}"
    without = f", without {flat}, in which seasonal-naive does not err" if flat else ""
    return f"{np.mean(ours[scored] / theirs[scored]):.2f} (mean over channels{without})"


def _by_channel(y: pd.DataFrame, errors: Floats) -> str:
    pairs = zip(y.columns, errors, strict=True)
    return "  ".join(f"{channel} {error:.3g}" for channel, error in pairs)


def _stream(graph: Path, *, history: pd.DataFrame, held_out: pd.DataFrame) -> Streamed:
    """Stream the history to warm up, then the held-out part reading by reading."""
    stream = StreamModel(graph).create_stream()
    for reading in history.to_numpy(np.float32):
        stream.step(reading)
    forecasts, seconds = [], []
    for reading in held_out.to_numpy(np.float32):
        start = time.perf_counter()
        output = stream.step(reading)
        seconds.append(time.perf_counter() - start)
        forecasts.append(output.forecast)
    return Streamed(np.stack(forecasts).astype(np.float64), np.array(seconds))


def _draw(
    forecaster: XLSTMForecaster, history: pd.DataFrame, held_out: pd.DataFrame, path: Path
) -> None:
    came = held_out.iloc[: forecaster.horizon]
    ForecastDisplay.from_estimator(forecaster, history, actual=came).figure_.savefig(path, dpi=120)
