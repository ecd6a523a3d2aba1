"""One more reading: the exported graph beside other ways to the same forecast, and a pool.

One channel, the estimator's default blocks, one thread; a token a reading carries the bars. All
take turns in one process: `Stream.step`, `XLSTM.step`, `XLSTM.forecast` over the last 512 readings;
and by runs whose arrays are bound, the graph, one that torch's exporter traced from `XLSTM.step`
(where onnxscript is installed), and two nodes of LSTM of equal width. A history is taken in by
chunks and by steps; `StreamPool.step` by size of batch stands beside `Stream.step`. Figures are
medians over the rounds of the ratio of processor times; microseconds are wall time and depend on
the machine, but for what a step adds to its graph, which is processor time. Then come 100,000
readings of 1,000 keys that join and leave, and where onnxruntime has CUDA a pool on it beside one
on the CPU, by wall time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from _graphs import bound, write_lstm
from _report import Report
from _traced import trace_step
from numpy.typing import NDArray

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel, StreamPool

WINDOW = 512
HISTORY = 576  # whole chunks of either patch
WALL, CPU = 0, 1
BATCHES = (1, 8, 16, 32, 64, 128)
KEYS = 256
CUDA = "CUDAExecutionProvider"
ON_DEVICE = (256, 1024, 4096)  # streams of a pool on CUDA
QUIET = 10
STATUS = "/proc/self/statm"
# Bars: microseconds of Python in a step, the share of a stream's step in a pool, MiB, readings.
ADDED, SHARE, GROWTH, FLOW = 10.0, 0.35, 2.0, 40_000.0
READINGS = make_sensor_stream(2000, random_state=0).readings.iloc[:, 0]


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
        times, model = _measure(patch, rounds=rounds, report=report)
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
        # What a busy machine adds is no one's: the quiet rounds tell what a step costs.
        quiet = [np.percentile(np.median(one[CPU], axis=1), QUIET) for one in (graph, run)]
        most = ADDED if patch == 1 else None
        report.add(
            f"{name} Stream.step adds to its graph µs", (quiet[0] - quiet[1]) * 1e6, most=most
        )
        _report_pool(report, name, model, rounds=rounds // 4, most=SHARE if patch == 1 else None)
    for width, least in ((64, None), (32, FLOW)):
        _report_flow(report, width=width, calls=60 if options.quick else 200, least=least)
    if CUDA in onnxruntime.get_available_providers():
        _report_device(report, rounds=rounds)
    return report.finish(check=options.check)


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how many times the processor time of another one run takes.

    The machine's speed drifts: only what ran in one round is compared, and by the time of the
    processor, since a long call is more often put aside than a short one.
    """
    return float(np.median(np.median(one[CPU], axis=1) / np.median(other[CPU], axis=1)))


def fitted(**options: int) -> XLSTMForecaster:
    forecaster = XLSTMForecaster(
        24, context_length=96, max_steps=5, random_state=0, device="cpu", **options
    )
    return forecaster.fit(READINGS)


def _measure(
    patch: int, *, rounds: int, report: Report
) -> tuple[dict[str, NDArray[np.float64]], StreamModel]:
    """Return the seconds of each way, `(2, rounds, runs in a round)`, and the graph."""
    forecaster = fitted(patch_length=patch)
    model = forecaster.model_.eval()
    values = READINGS.to_numpy(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        step_file, warm_up_file = folder / "model.onnx", folder / "warmup.onnx"
        export_onnx(forecaster, step_file, warm_up=warm_up_file)
        graph = StreamModel(step_file)
        stream, stepped = (graph.create_stream() for _ in range(2))
        warmed = StreamModel(step_file, warm_up=warm_up_file).create_stream()
        peers = _bound_peers(model, folder, report=report)
        _report_size(report, f"patch {patch}", step_file)
    numbers = values.tolist()
    windows = torch.as_tensor(values[:WINDOW])[None, :, None]
    readings = torch.as_tensor(values)[:, None, None]
    state = model.initial_state(1)

    def torch_step(t: int) -> None:
        nonlocal state
        _, state = model.step(readings[t], state)

    runs: dict[str, tuple[Callable[[int], object], int]] = {
        "graph": (lambda t: stream.step(numbers[t]), 50),
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
    times = {name: np.moveaxis(np.array(rows[1:]), -1, 0) for name, rows in samples.items()}
    return times, graph


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


def _report_size(report: Report, name: str, file: Path) -> None:
    """Report the size of the file, and the memory of a process that streams beside torch's."""
    report.add(f"{name} file kB", file.stat().st_size / 1e3)
    streams = f"""
        from xlstm_ts.streaming import StreamModel
        stream = StreamModel({str(file)!r}).create_stream()
        for _ in range(100):
            stream.step(1.0)
    """
    ours, theirs = _memory_of(streams), _memory_of("import torch")
    report.add(f"{name} resident MiB of a process that streams", ours)
    report.add("resident MiB of a process that has imported torch", theirs)


def _memory_of(code: str) -> float:
    """Return the resident MiB of a fresh process after it has run some code; NaN without /proc."""
    end = f"print(open('{STATUS}').read().split()[1])"
    run = [sys.executable, "-c", f"{textwrap.dedent(code)}\n{end}"]
    if not Path(STATUS).exists():
        return float("nan")
    pages = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return int(pages) * resource.getpagesize() / 2**20


def _report_pool(
    report: Report, name: str, model: StreamModel, *, rounds: int, most: float | None
) -> None:
    """Report what a reading costs in a pool, by size of batch, as a share of a stream's step."""
    rng, stream = np.random.default_rng(0), model.create_stream()
    pools = {size: StreamPool(model, batch_size=size) for size in BATCHES}
    shares: dict[int, list[float]] = {size: [] for size in BATCHES}
    readings = dict(enumerate(rng.standard_normal(KEYS).tolist()))
    for _ in range(rounds + 1):
        for size, pool in pools.items():
            alone = [_seconds(lambda _: stream.step(1.0), 0)[CPU] for _ in range(50)]
            together = _seconds(lambda _, pool=pool: pool.step(readings), 0)[CPU]
            shares[size].append(together / KEYS / float(np.median(alone)))
    medians = {size: float(np.median(each[1:])) for size, each in shares.items()}
    for size, share in medians.items():
        report.add(f"{name} pool, batch {size}, a reading / Stream.step", share)
    best = min(medians, key=medians.__getitem__)
    report.note(f'the best batch is {best}, "auto" takes {StreamPool(model).batch_size}')
    report.add(f"{name} pool, best batch, a reading / Stream.step", medians[best], most=most)


def _report_flow(report: Report, *, width: int, calls: int, least: float | None) -> None:
    """Report throughput and memory while a thousand keys come and go, five a call."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(fitted(patch_length=1, d_model=width), Path(folder) / "model.onnx")
        model = StreamModel(Path(folder) / "model.onnx")
    pool, rng = StreamPool(model, expire_after=20), np.random.default_rng(0)
    start, before, count = time.process_time(), 0.0, 0
    for call in range(calls):
        if call == calls // 2:
            before = _resident()
        keys = 5 * call + rng.permutation(1000)[:500]
        count += len(pool.step(dict(zip(keys.tolist(), rng.standard_normal(500), strict=True))))
    seconds, name = time.process_time() - start, f"width {width}"
    report.add(f"{name} readings of keys that come and go", count)
    report.add(f"{name} keys at the end", len(pool))
    report.add(f"{name} readings in a second of the processor", count / seconds, least=least)
    report.add(f"{name} resident MiB after the first half", before)
    growth = _resident() - before
    report.add(f"{name} resident MiB that the second half adds", growth, most=GROWTH)


def _report_device(report: Report, *, rounds: int) -> None:
    """Report what a reading costs in a pool whose states stay on CUDA, of all streams at once."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(fitted(patch_length=1), Path(folder) / "model.onnx")
        host, away = (
            StreamModel(Path(folder) / "model.onnx", providers=providers)
            for providers in (["CPUExecutionProvider"], [CUDA])
        )
    if away.session.get_providers()[0] != CUDA:
        report.note("onnxruntime has CUDA, and no device")
        return
    rng = np.random.default_rng(0)
    for count in ON_DEVICE:
        readings = dict(enumerate(rng.standard_normal(count).tolist()))
        medians = []
        for pool in (StreamPool(host), StreamPool(away, batch_size=count)):
            walls = [
                _seconds(lambda _, p=pool, r=readings: p.step(r), 0)[WALL] for _ in range(rounds)
            ]
            medians.append(float(np.median(walls)) / count * 1e6)
        report.add(f"CUDA pool of {count}, a reading µs", medians[1])
        report.add(f"CUDA pool of {count} / the pool on the CPU", medians[1] / medians[0])


def _resident() -> float:
    """Return the memory of this process in MiB; NaN where the system has no /proc."""
    if not Path(STATUS).exists():
        return float("nan")
    return int(Path(STATUS).read_text().split()[1]) * resource.getpagesize() / 2**20


def _seconds(run: Callable[[int], object], t: int) -> tuple[float, float]:
    start, cpu_start = time.perf_counter(), time.thread_time()
    run(t)
    cpu = time.thread_time() - cpu_start
    return time.perf_counter() - start, cpu


if __name__ == "__main__":
    sys.exit(main())
