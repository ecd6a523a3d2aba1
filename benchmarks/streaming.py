"""One more reading: the exported graph beside other ways to the same forecast.

One channel, the estimator's default blocks, one thread; a token a reading carries the bars. All
take turns in one process: `Stream.step`, `XLSTM.step`, `XLSTM.forecast` over the last 512 readings;
and by runs whose arrays are bound, the graph, one that torch's exporter traced from `XLSTM.step`
(where onnxscript is installed), and two nodes of LSTM of equal width. A history is taken in by
chunks and by steps. Figures are medians over the rounds of the ratio of processor times;
microseconds are wall time and depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _graphs import bound, write_lstm
from _report import Report
from _traced import trace_step
from numpy.typing import NDArray

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel

WINDOW = 512
HISTORY = 576  # whole chunks of either patch
WALL, CPU = 0, 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 10 if options.quick else 40
    report = Report()
    for patch, bars in ((1, (7.0, 300.0, 0.62, 4.0)), (24, (7.0, None, None, None))):
        name = f"patch {patch}"
        times = _measure(patch, rounds=rounds, report=report)
        graph = times["graph"]
        report.add(f"{name} Stream.step median µs", float(np.median(graph[WALL])) * 1e6)
        report.add(f"{name} Stream.step p99 µs", float(np.percentile(graph[WALL], 99)) * 1e6)
        for peer, bar in zip(("the torch step", f"a {WINDOW} window in torch"), bars, strict=False):
            report.add(f"{name} times faster than {peer}", _ratio(times[peer], graph), least=bar)
        run = times["bound graph"]
        for peer, bar in zip(("the traced graph", "two LSTM nodes"), bars[2:], strict=True):
            if peer in times:
                report.add(f"{name} bound time / {peer}", _ratio(run, times[peer]), most=bar)
        faster = _ratio(times["steps"], times["chunks"])
        report.add(f"{name} warm-up by chunks, times faster than stepping", faster, least=4.0)
    return report.finish(check=options.check)


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how many times the processor time of another one run takes.

    The machine's speed drifts: only what ran in one round is compared, and by the time of the
    processor, since a long call is more often put aside than a short one.
    """
    return float(np.median(np.median(one[CPU], axis=1) / np.median(other[CPU], axis=1)))


def _measure(patch: int, *, rounds: int, report: Report) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each way, `(2, rounds, runs in a round)`."""
    y = make_sensor_stream(2000, random_state=0).readings.iloc[:, 0]
    forecaster = XLSTMForecaster(
        24,
        patch_length=patch,
        context_length=96,
        max_steps=5,
        random_state=0,
        device="cpu",
    ).fit(y)
    model = forecaster.model_.eval()
    values = y.to_numpy(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        step_file, warm_up_file = folder / "model.onnx", folder / "warmup.onnx"
        export_onnx(forecaster, step_file, warm_up=warm_up_file)
        stream, stepped = (StreamModel(step_file).create_stream() for _ in range(2))
        warmed = StreamModel(step_file, warm_up=warm_up_file).create_stream()
        peers = _bound_peers(model, folder, report=report)
    windows = torch.as_tensor(values[:WINDOW])[None, :, None]
    readings = torch.as_tensor(values)[:, None, None]
    state = model.initial_state(1)

    def torch_step(t: int) -> None:
        nonlocal state
        _, state = model.step(readings[t], state)

    runs: dict[str, tuple[Callable[[int], object], int]] = {
        "graph": (lambda t: stream.step(values[t]), 50),
        "the torch step": (torch_step, 20),
        f"a {WINDOW} window in torch": (lambda _: model.forecast(windows), 2),
        **{peer: (run, 50) for peer, run in peers.items()},
        "steps": (lambda _: stepped.warm_up(values[:HISTORY]), 1),
        "chunks": (lambda _: warmed.warm_up(values[:HISTORY]), 3),
    }
    samples: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, (run, count) in runs.items():
                samples[name].append([_seconds(run, t) for t in range(count)])
    # The first round is warm-up.
    return {name: np.moveaxis(np.array(rows[1:]), -1, 0) for name, rows in samples.items()}


def _bound_peers(
    model: XLSTM, folder: Path, *, report: Report
) -> dict[str, Callable[[int], object]]:
    """Return bound runs of the graph and of those it is held against."""
    config = model.config
    files = {"bound graph": folder / "model.onnx", "two LSTM nodes": folder / "lstm.onnx"}
    outputs = config.horizon * len(config.quantiles)
    write_lstm(files["two LSTM nodes"], width=config.d_model, outputs=outputs)
    if config.patch_length == 1:
        try:
            trace_step(model, folder / "traced.onnx")
            files["the traced graph"] = folder / "traced.onnx"
        except ModuleNotFoundError as err:
            report.note(f"traced graph skipped: {err}")
    return {peer: bound(file) for peer, file in files.items()}


def _seconds(run: Callable[[int], object], t: int) -> tuple[float, float]:
    start, cpu_start = time.perf_counter(), time.thread_time()
    run(t)
    cpu = time.thread_time() - cpu_start
    return time.perf_counter() - start, cpu


if __name__ == "__main__":
    sys.exit(main())
