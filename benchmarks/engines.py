"""One model in one process, on Spark and on Ray: readings in a second of a core, and latency.

The estimator's default model, one channel, a token a reading, a thousand keys. What counts is the
time of the processor, of all processes together (driver, JVM, workers): a busy machine makes the
clock on the wall run, and not that. Spark is measured from its third micro-batch on, when its
classes are compiled and its workers are there; seconds on the wall are told beside. Spark and Ray
are skipped where they are not installed (`make spark` has both).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from _report import Report
from streaming import fitted

from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel, StreamPool

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the example of actors

KEYS, HOURS = 1000, 20  # readings of a key in a large micro-batch
START = pd.Timestamp("2024-01-01", tz="UTC")
# Bars: readings in a second of a core.
POOL, SPARK, RAY = 25_000.0, 3_000.0, 20_000.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer readings")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--width", type=int, default=64, help="of the model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report, rounds = Report(), 2 if options.quick else 6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(fitted(patch_length=1, d_model=options.width), path)
        _report_pool(report, path, calls=rounds * HOURS)
        for name, run in (("Spark", _report_spark), ("Ray", _report_ray)):
            try:
                run(report, path, rounds=rounds)
            except ImportError as err:
                report.note(f"{name} skipped: {err}")
    return report.finish(check=options.check)


def _report_pool(report: Report, path: Path, *, calls: int) -> None:
    model, rng = StreamModel(path), np.random.default_rng(0)
    pool, stream = StreamPool(model), model.create_stream()
    keys = [f"pump {number}" for number in range(KEYS)]
    rows = rng.standard_normal((calls, KEYS)).tolist()
    pool.step(dict(zip(keys, rows[0], strict=True)))
    start = time.process_time()
    for row in rows:
        pool.step(dict(zip(keys, row, strict=True)))
    seconds = time.process_time() - start
    report.add(
        "pool in one process, readings in a second of a core", calls * KEYS / seconds, least=POOL
    )
    walls = []
    for value in rows[0]:
        begin = time.perf_counter()
        stream.step(value)
        walls.append(time.perf_counter() - begin)
    report.add(
        "stream in one process, ms from a reading to its forecast, median", np.median(walls) * 1e3
    )
    report.add("the same, 99 of 100", float(np.percentile(walls, 99)) * 1e3)
    begin = time.process_time()
    pool.snapshot(kept := BytesIO())
    report.add("snapshot of a thousand keys, ms of a core", (time.process_time() - begin) * 1e3)
    report.add("state of a key in it, kB", len(kept.getvalue()) / KEYS / 1e3)


def _report_spark(report: Report, path: Path, *, rounds: int) -> None:
    from pyspark.sql import SparkSession

    from xlstm_ts.spark import ROCKS_DB, STORE, score_batch, spark_stream

    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": 2,
        STORE: ROCKS_DB,
    }
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    home = path.parent
    feed = _Feed(home / "readings")
    feed.write(HOURS)
    schema = spark.read.parquet(str(feed.folder)).schema
    columns: dict[str, Any] = {"key": "pump", "time": "at", "value": "kw"}
    files = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1)
    given = spark_stream(files.parquet(str(feed.folder)), path, **columns)
    sink = given.writeStream.format("noop").option("checkpointLocation", str(home / "checkpoint"))
    query = sink.start()
    try:
        feed.write(HOURS)
        query.processAllAvailable()
        count, wall, seconds = _measured(lambda: _fed(feed, query, [HOURS] * rounds))
        report.add("Spark, readings in a second of a core", count / seconds, least=SPARK)
        report.add("the same in a second on the wall, two cores", count / wall)
        begin = len(query.recentProgress)
        for _ in range(3 * rounds):  # one after the other: what a reading waits for
            _fed(feed, query, [1])
        done = [json.loads(one.json) for one in query.recentProgress[begin:]]
        walls = [one["durationMs"]["triggerExecution"] / 1e3 for one in done if one["numInputRows"]]
        report.add(f"Spark, seconds of a micro-batch of {KEYS} readings, median", np.median(walls))
    finally:
        query.stop()
    batch = spark.read.parquet(str(feed.folder))
    total, wall, seconds = _measured(lambda: _scored(batch, score_batch(batch, path, **columns)))
    report.add("Spark batch, readings in a second of a core", total / seconds)
    report.add("the same in a second on the wall, two cores", total / wall)
    spark.stop()


class _Feed:
    """Files of readings of all keys, hour after hour."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._hour, self._files = folder, 0, 0
        self._rng = np.random.default_rng(1)
        folder.mkdir()

    def write(self, hours: int) -> int:
        """Write a file; return how many readings are in it."""
        count = hours * KEYS
        at = START + pd.to_timedelta(np.repeat(np.arange(hours), KEYS) + self._hour, unit="h")
        frame = pd.DataFrame(
            {
                "pump": [f"pump {number}" for number in range(KEYS)] * hours,
                "at": at.as_unit("us"),
                "kw": self._rng.standard_normal(count),
            }
        )
        temporary = self.folder / f"_{self._files}"  # Spark looks past such names
        frame.to_parquet(temporary, index=False)
        temporary.rename(self.folder / f"{self._files:04}.parquet")
        self._hour, self._files = self._hour + hours, self._files + 1
        return count


def _fed(feed: _Feed, query: Any, files: list[int]) -> int:
    count = sum(map(feed.write, files))
    query.processAllAvailable()
    return count


def _scored(batch: Any, given: Any) -> int:
    given.write.format("noop").mode("overwrite").save()
    return int(batch.count())


def _report_ray(report: Report, path: Path, *, rounds: int) -> None:
    import ray

    from examples.ray_actors import AT_ONCE, Shard

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    graph, rng = ray.put(path.read_bytes()), np.random.default_rng(2)
    halves = [[f"pump {number}" for number in range(half, KEYS, 2)] for half in range(2)]
    remote = ray.remote(num_cpus=1)(Shard)
    actors = [
        remote.remote(graph, keys, str(path.parent / f"actor {place}"))
        for place, keys in enumerate(halves)
    ]
    calls = [rng.standard_normal((AT_ONCE, KEYS // 2, 1)).astype(np.float32) for _ in range(10)]

    def run(starts: range) -> int:
        for start in starts:
            rows = calls[start % len(calls)]
            asked = [actor.step.remote(rows, start=start * AT_ONCE) for actor in actors]
            ray.get(asked)
        return len(starts) * AT_ONCE * KEYS

    run(range(2))
    count, wall, seconds = _measured(lambda: run(range(2, 2 + 10 * rounds)))
    report.add("Ray, readings in a second of a core", count / seconds, least=RAY)
    report.add("the same in a second on the wall, two actors", count / wall)
    ray.shutdown()


def _measured(run: Callable[[], int]) -> tuple[int, float, float]:
    """Return what a run gave, its seconds on the wall, and those of all our processes together."""
    begin, before = time.perf_counter(), _processor()
    count = run()
    return count, time.perf_counter() - begin, _processor() - before


def _processor() -> float:
    """Return the processor time of this process and all that came from it, in seconds."""
    total = 0.0
    for process in (own := psutil.Process(), *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    sys.exit(main())
