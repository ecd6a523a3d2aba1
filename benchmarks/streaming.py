"""One more reading: the exported graph, the PyTorch step, and a window computed again.

One channel, the estimator's default blocks, one thread; a token a reading carries the bars. Three
ways to the same forecast take turns in one process: `Stream.step`, `XLSTM.step`, and
`XLSTM.forecast` over the last 512 readings. Figures are medians over the rounds of the ratio of
processor times; microseconds are wall time and depend on the machine.
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
from _report import Report
from numpy.typing import NDArray

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel

WINDOW = 512
WALL, CPU = 0, 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 10 if options.quick else 40
    report = Report()
    for patch, bars in ((1, (4.0, 200.0)), (24, (4.0, None))):
        graph, step, window = _measure(patch, rounds=rounds)
        name = f"patch {patch}"
        report.add(f"{name} Stream.step median µs", float(np.median(graph[WALL])) * 1e6)
        report.add(f"{name} Stream.step p99 µs", float(np.percentile(graph[WALL], 99)) * 1e6)
        for peer, times, bar in (
            ("the torch step", step, bars[0]),
            (f"a {WINDOW} window in torch", window, bars[1]),
        ):
            # The machine's speed drifts: only what ran in one round is compared, and by the time
            # of the processor, since a long call is more often put aside than a short one.
            ratios = np.median(times[CPU], axis=1) / np.median(graph[CPU], axis=1)
            report.add(f"{name} times faster than {peer}", float(np.median(ratios)), least=bar)
    return report.finish(check=options.check)


def _measure(patch: int, *, rounds: int) -> list[NDArray[np.float64]]:
    """Return the seconds of graph, torch step and window, each `(2, rounds, runs in a round)`."""
    y = make_sensor_stream(2000, random_state=0).readings.iloc[:, 0]
    forecaster = XLSTMForecaster(
        24,
        patch_length=patch,
        context_length=96,
        max_steps=5,
        random_state=0,
        device="cpu",
    ).fit(y)
    model = forecaster.model_
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(forecaster, path)
        stream = StreamModel(path).create_stream()
    values = y.to_numpy(np.float32)
    windows = torch.as_tensor(values[:WINDOW])[None, :, None]
    readings = torch.as_tensor(values)[:, None, None]
    state = model.initial_state(1)

    def torch_step(t: int) -> None:
        nonlocal state
        _, state = model.step(readings[t], state)

    runs: list[tuple[Callable[[int], object], int]] = [
        (lambda t: stream.step(values[t]), 50),
        (torch_step, 20),
        (lambda _: model.forecast(windows), 2),
    ]
    samples: list[list[list[tuple[float, float]]]] = [[] for _ in runs]
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for (run, count), rows in zip(runs, samples, strict=True):
                rows.append([_seconds(run, t) for t in range(count)])
    # The first round is warm-up.
    return [np.moveaxis(np.array(rows[1:]), -1, 0) for rows in samples]


def _seconds(run: Callable[[int], object], t: int) -> tuple[float, float]:
    start, cpu_start = time.perf_counter(), time.thread_time()
    run(t)
    cpu = time.thread_time() - cpu_start
    return time.perf_counter() - start, cpu


if __name__ == "__main__":
    sys.exit(main())
