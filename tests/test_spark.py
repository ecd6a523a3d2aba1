"""Streams on Spark give what pools give, also after their process was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import small
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel, StreamPool

pytest.importorskip("pyspark", reason="pip install 'xlstm-ts[spark]', 490 MB; `make spark` does")
if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
    pytest.skip("no Java for Spark", allow_module_level=True)

from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.spark_query import COLUMNS, PARTITIONS, SCHEMA, make_session, read_rows, run_query
from xlstm_ts.spark import score_batch, spark_stream

# PySpark's own: of sockets, and of a pandas that is newer than it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

ROOT = Path(__file__).parents[1]
KEYS = [(pump, line) for pump in range(10) for line in ("x", "y")]
FILES, HOURS = 4, 3
START = pd.Timestamp("2024-03-01")


@pytest.fixture(scope="module")
def spark() -> SparkSession:
    session = make_session()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def home(graph_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a graph and files of readings, in no order."""
    folder = tmp_path_factory.mktemp("spark")
    shutil.copy(graph_path, folder / "model.onnx")
    (folder / "readings").mkdir()
    rng = np.random.default_rng(0)
    for at in range(FILES):
        hours = range(at * HOURS, (at + 1) * HOURS)
        rows = [_row(key, hour, rng) for hour in hours for key in KEYS]
        if at == 2:
            rows += [rows[0], {**rows[1], "at": "2024-01-01T00:00:00Z"}, {**rows[2], "at": None}]
            rows += [{**rows[3], "pump": None}]
        mixed = rng.permutation(len(rows))
        file = folder / "readings" / f"{at}.json"
        file.write_text("\n".join(json.dumps(rows[place]) for place in mixed))
        os.utime(file, (at, at))  # the order in which Spark takes them
    return folder


def _row(key, hour, rng):
    a, b = 50 + 10 * rng.standard_normal(), 3 + rng.standard_normal()
    at = (START + pd.Timedelta(hours=hour)).isoformat() + "Z"
    return {"pump": key[0], "line": key[1], "at": at, "a": a, "b": b}


@pytest.fixture(scope="module")
def whole(home: Path, spark: SparkSession) -> list[list[object]]:
    """Return the rows of the micro-batches of a query that ran through."""
    (home / "whole").mkdir()
    run_query(spark, home / "whole")
    return read_rows(home / "whole")


def ordered(rows):
    return sorted(map(tuple, rows), key=lambda row: json.dumps(row, default=str))


def test_killed_in_a_micro_batch_it_gives_the_same_to_the_bit(home, spark, whole) -> None:
    folder = home / "killed"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.spark_query", str(folder), "2"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert len(read_rows(folder)) == 2
    run_query(spark, folder)
    given = read_rows(folder)
    assert len(given) == FILES
    for one, other in zip(given, whole, strict=True):
        assert ordered(one) == ordered(other)


def test_as_pools_give_to_the_bit(home, spark, whole) -> None:
    """Each shard is a pool: the k-th readings of a file of all its keys go on together."""
    frame = spark.createDataFrame(KEYS, "pump STRING, line STRING")
    place = F.pmod(F.xxhash64("pump", "line"), F.lit(PARTITIONS)).alias("place")
    shards = defaultdict(list)
    for pump, line, shard in frame.select("pump", "line", place).collect():
        shards[shard].append((int(pump), line))
    assert len(shards) == PARTITIONS
    given = {
        (row.pump, row.line, row.at, row.channel): (row.forecast, row.quantiles)
        for rows in whole
        for row in rows
        if row.error is None
    }
    assert len(given) == len(KEYS) * FILES * HOURS * 2
    files = [file.read_text().splitlines() for file in sorted((home / "readings").iterdir())]
    rows = {
        (row["pump"], row["line"], row["at"]): row
        for file in files
        for row in map(json.loads, file)
    }
    for keys in shards.values():
        pool = StreamPool(StreamModel(home / "model.onnx"))
        for hour in range(FILES * HOURS):
            at = START + pd.Timedelta(hours=hour)
            now = {key: rows[(*key, at.isoformat() + "Z")] for key in sorted(keys, key=str)}
            outputs = pool.step({key: [row["a"], row["b"]] for key, row in now.items()}, time=at)
            for key, output in outputs.items():
                for place, channel in enumerate("ab"):
                    forecast, quantiles = given[(*key, at.to_pydatetime(), channel)]
                    assert forecast == output.forecast[:, place].tolist()
                    assert quantiles == output.quantiles[:, place].T.tolist()


def test_what_cannot_be_used_is_told_and_stops_nothing(whole) -> None:
    errors = [row for row in whole[2] if row.error is not None and row.channel == "a"]
    assert len(errors) == 4
    assert sum("not after" in row.error for row in errors) == 2
    assert sum("cannot be read as a time" in row.error for row in errors) == 1
    (no_key,) = [row for row in errors if row.pump is None]
    assert "A key is a text" in no_key.error
    assert all(row.forecast is None and row.quantiles is None for row in errors)
    assert any(row.alarm for rows in whole for row in rows)


def test_batches_give_the_same(home, spark, whole) -> None:
    frame = spark.read.schema(SCHEMA).json(str(home / "readings"))
    frame = frame.where(F.col("at") >= F.lit(START.to_pydatetime()))  # late only in a stream
    rows = score_batch(frame, home / "model.onnx", **COLUMNS).collect()
    one, other = (
        {(row.pump, row.line, row.at, row.channel): row for row in some if row.error is None}
        for some in (rows, [row for batch in whole for row in batch])
    )
    assert one.keys() == other.keys()
    for key, row in one.items():
        np.testing.assert_allclose(row.quantiles, other[key].quantiles, rtol=1e-5, atol=1e-5)
        assert row.alarm == other[key].alarm


def test_workers_have_not_imported_torch(home, spark, whole) -> None:
    look = eval(
        "lambda frames: [__import__('pandas').DataFrame({name: [name in __import__('sys').modules]"
        " for name in ('xlstm_ts.shards', 'torch', 'sklearn')})]",
        {"__name__": "__main__"},  # pickled by value: a worker cannot import a test
    )
    schema = "`xlstm_ts.shards` BOOLEAN, torch BOOLEAN, sklearn BOOLEAN"
    rows = spark.range(8, numPartitions=8).mapInPandas(look, schema).collect()
    assert any(row["xlstm_ts.shards"] for row in rows)
    assert not any(row["torch"] or row["sklearn"] for row in rows)


def test_another_number_of_shards_is_refused(home, spark, whole) -> None:
    folder = home / "resharded"
    shutil.copytree(home / "whole", folder)
    for file in sorted((folder / "checkpoint" / "commits").iterdir())[-2:]:
        file.unlink()  # as if the last batch had not been done
    with pytest.raises(StreamingQueryException, match=r"with 2 shards, not 3: give\s+shards=2"):
        run_query(spark, folder, shards=3)


def test_each_shard_has_a_partition(spark) -> None:
    from xlstm_ts.spark import _labels

    labels = spark.createDataFrame([(label,) for label in _labels(spark, 7)], "label INT")
    places = labels.repartition(7, "label").select(F.spark_partition_id()).distinct()
    assert places.count() == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "nothing"}, r"`key` names 'nothing'; `df` has pump, line, at, b, a"),
        ({"key": "a"}, r"`key` 'a' is double, not string or integral: cast it"),
        ({"time": "line"}, r"`time` 'line' is string, not timestamp or timestampntz or date"),
        ({"value": ["line", "a"]}, r"`value` 'line' is string, not numeric"),
        ({"value": "a"}, r"a column for each channel of the model, a, b; got a"),
        ({"key": []}, r"`key` names no column"),
        ({"key": ["pump", "pump"]}, r"has another column pump: rename"),
        ({"margin": -1}, r"`margin` must be at least 0"),
        ({"shards": 0}, r"`shards` must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(changes, message, home, spark) -> None:
    frame = spark.readStream.schema(SCHEMA).json(str(home / "readings"))
    with pytest.raises(ValueError, match=message):
        spark_stream(frame, home / "model.onnx", **{**COLUMNS, **changes})


def test_frames_and_stores_of_the_wrong_kind(home, spark) -> None:
    batch = spark.read.schema(SCHEMA).json(str(home / "readings"))
    streaming = spark.readStream.schema(SCHEMA).json(str(home / "readings"))
    with pytest.raises(ValueError, match="use score_batch"):
        spark_stream(batch, home / "model.onnx", **COLUMNS)
    with pytest.raises(ValueError, match="use spark_stream"):
        score_batch(streaming, home / "model.onnx", **COLUMNS)
    for name in ("channel", "Channel"):
        with pytest.raises(ValueError, match=f"another column {name}: rename"):
            score_batch(
                batch.withColumnRenamed("line", name),
                home / "model.onnx",
                **{**COLUMNS, "key": name},
            )
    name = "spark.sql.streaming.stateStore.providerClass"
    store = spark.conf.get(name)
    spark.conf.unset(name)
    try:
        with pytest.raises(ValueError, match=r"needs RocksDB: spark\.conf\.set"):
            spark_stream(streaming, home / "model.onnx", **COLUMNS)
    finally:
        spark.conf.set(name, store)


def test_models_that_ask_for_more(spark, tmp_path) -> None:
    index = pd.date_range("2024-01-01", periods=120, freq="h")
    y = pd.Series(np.sin(np.arange(120)), index, name="load")
    frame = spark.createDataFrame(
        [(1, START.to_pydatetime(), 1.0)], "id INT, at TIMESTAMP, y DOUBLE"
    )
    columns = {"key": "id", "time": "at", "value": "y"}
    export_onnx(small().fit(y, pd.DataFrame({"promo": 1.0}, index)), tmp_path / "promo.onnx")
    with pytest.raises(StreamError, match="takes promo beside its readings"):
        score_batch(frame, tmp_path / "promo.onnx", **columns)
    export_onnx(small(calendar=("hour",)).fit(y), tmp_path / "hour.onnx")
    with pytest.raises(StreamError, match="without a zone: give `time` as TIMESTAMP_NTZ"):
        score_batch(frame, tmp_path / "hour.onnx", **columns)
    wall = frame.withColumn("at", F.col("at").cast("timestamp_ntz"))
    (row,) = score_batch(wall, tmp_path / "hour.onnx", **columns).collect()
    assert (row.id, row.at, row.error) == (1, START.to_pydatetime(), None)


@pytest.mark.parametrize("kind", ["timestamp", "timestamp_ntz", "date"])
def test_a_time_that_stands_for_none_stops_nothing(kind: str, home: Path, spark) -> None:
    times = {"2024-01-01": True, "1000-01-01": kind == "timestamp", "9999-12-31": False}
    rows = [(number, time, 1.0) for number, time in enumerate(times)]
    frame = spark.createDataFrame(rows, "pump INT, at STRING, a DOUBLE").withColumn("b", F.col("a"))
    frame = frame.withColumn("at", F.expr(f"cast(at as {kind}) + interval 1 day"))
    frame = frame.withColumn("at", F.col("at").cast(kind))
    given = score_batch(frame, home / "model.onnx", **{**COLUMNS, "key": "pump"})
    found = {row.pump: row.error for row in given.select("pump", "error").collect()}
    assert [found[number] is None for number in range(3)] == list(times.values())
