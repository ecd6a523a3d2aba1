"""A query over files of readings, in a process that can be killed: `test_spark.py` runs it."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA = "pump INT, line STRING, at TIMESTAMP, b DOUBLE, a DOUBLE"
COLUMNS = {"key": ["pump", "line"], "time": "at", "value": ["b", "a"]}
PARTITIONS = 2


def make_session() -> SparkSession:
    """Return a session of two cores; pieces are small, so that a shard comes in several."""
    from pyspark.sql import SparkSession

    from xlstm_ts.spark import ROCKS_DB, STORE

    os.environ["PYSPARK_PYTHON"] = sys.executable
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": PARTITIONS,
        "spark.sql.execution.arrow.maxRecordsPerBatch": 20,
        "spark.sql.session.timeZone": "UTC",
        STORE: ROCKS_DB,
    }
    master = os.environ.get("XLSTM_TS_SPARK_MASTER", "local[2]")
    builder = SparkSession.builder.master(master).config(map=options)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    return session


def run_query(
    spark: SparkSession, folder: Path, *, kill_at: int | None = None, **options: object
) -> None:
    """Write what each micro-batch gives to `folder/out`; a file of readings is one of them.

    The process kills itself in the batch `kill_at`: the workers have written its state then, and
    Spark has committed neither that nor the batch.
    """
    from xlstm_ts.spark import spark_stream

    def keep(given: DataFrame, batch: int) -> None:
        rows = given.collect()
        if batch == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "out" / f"{batch}.pickle").write_bytes(pickle.dumps(rows))

    (folder / "out").mkdir(exist_ok=True)
    files = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1)
    readings = files.json(str(folder.parent / "readings"))
    given = spark_stream(readings, folder.parent / "model.onnx", **COLUMNS, **options)
    query = given.writeStream.foreachBatch(keep).trigger(availableNow=True)
    query = query.option("checkpointLocation", str(folder / "checkpoint")).start()
    query.awaitTermination()


def read_rows(folder: Path) -> list[list[object]]:
    """Return the rows of each micro-batch."""
    files = sorted((folder / "out").iterdir(), key=lambda file: int(file.stem))
    return [pickle.loads(file.read_bytes()) for file in files]


if __name__ == "__main__":
    run_query(make_session(), Path(sys.argv[1]), kill_at=int(sys.argv[2]))
