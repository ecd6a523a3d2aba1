"""The memory of a fit on Parquet files, as the data grow ten times, beside that of a fit in memory.

`python benchmarks/parquet.py`: hourly series of random waves, as many readings as the pool holds
and a little more, then ten times as many series, then series ten times as long. Each fit runs in a
fresh process, which tells the most memory that it has held (VmHWM, so on Linux alone), and what it
held once everything was imported. One thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _report import Report

# Readings of a pool, and how many series of how many readings are a little more.
POOL, COUNT, LENGTH = 2**21, 250, 10_000
QUICK = (2**17, 50, 3_000)
GROUP = 2**18
# The most that the memory of ten times the data may be of that of one.
FLAT = 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the readings")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        way, folder, pool = options.fit
        print(json.dumps(_fit(way, folder, pool=int(pool), steps=options.steps)))
        return 0
    pool, count, length = QUICK if options.quick else (POOL, COUNT, LENGTH)
    report = Report()
    sizes = {
        "1x": (count, length),
        "10x series": (10 * count, length),
        "10x length": (count, 10 * length),
    }
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        for size, (many, long) in sizes.items():
            folder = Path(name) / size.replace(" ", "-")
            folder.mkdir()
            _write(folder / "panel.parquet", count=many, length=long)
            for way in ("Parquet", "memory"):
                if size != "10x length" or way == "Parquet":
                    found = _fresh(way, folder, pool=pool, steps=options.steps)
                    peaks[way, size] = found["peak MiB"]
                    for what, value in found.items():
                        report.add(f"{way} {size} ({many * long:.2g} readings) {what}", value)
    for size in ("10x series", "10x length"):
        ratio = peaks["Parquet", size] / peaks["Parquet", "1x"]
        report.add(f"Parquet {size} peak / 1x", ratio, most=FLAT)
    report.add("memory 10x series peak / 1x", peaks["memory", "10x series"] / peaks["memory", "1x"])
    return report.finish(check=options.check)


def _write(path: Path, *, count: int, length: int) -> None:
    """Write waves of random level, size and phase, a few series at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    hours = np.arange(length)
    times = pa.array(hours * 3600 * 10**6, pa.timestamp("us"))
    schema = pa.schema({"unique_id": pa.string(), "ds": times.type, "y": pa.float64()})
    with pq.ParquetWriter(path, schema) as file:
        several = max(1, GROUP // length)
        for start in range(0, count, several):
            parts = []
            for number in range(start, min(count, start + several)):
                level, size, phase = random.uniform(1, 100, 3)
                wave = np.sin(2 * np.pi * (hours + phase) / 24)
                y = level + size * (wave + 0.3 * random.standard_normal(length))
                ids = pa.array([f"s{number:06}"]).take(pa.array(np.zeros(length, np.int64)))
                parts.append(pa.table([ids, times, y], schema=schema))
            file.write_table(pa.concat_tables(parts), row_group_size=GROUP)


def _fresh(way: str, folder: Path, *, pool: int, steps: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--steps",
        str(steps),
        "--fit",
        way,
        str(folder),
        str(pool),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _fit(way: str, folder: str, *, pool: int, steps: int) -> dict[str, float]:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401
    import torch

    from xlstm_ts import XLSTMForecaster
    from xlstm_ts.parquet import ParquetPanel

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    forecaster = XLSTMForecaster(24, max_steps=steps, patience=None, random_state=0, device="cpu")
    before, start = _most_held(), time.perf_counter()
    y: Any = ParquetPanel(folder, pool_rows=pool)
    if way == "memory":
        y = pd.read_parquet(folder)
    forecaster.fit(y)
    return {
        "MiB before": before,
        "peak MiB": _most_held(),
        "seconds": time.perf_counter() - start,
        "validation loss": forecaster.history_[-1].validation_loss,
    }


def _most_held() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
