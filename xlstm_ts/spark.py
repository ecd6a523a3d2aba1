"""Streams of an exported graph on Spark: Structured Streaming, and batches of many series.

It needs the extra `spark` (PySpark 4); the workers need numpy, pandas, pyarrow and onnxruntime, and
neither torch nor scikit-learn. `docs/scaling.md` says what it carries.

Keys are divided into shards, by their hash. A shard is a `StreamPool`, and what Spark keeps in its
state store is the pool's snapshot, one value a shard: Spark's checkpoint holds it together with the
offsets of the source, so a query that goes on from there gives what it would have given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import uuid4

import pandas as pd

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import BackendError, StreamError
from xlstm_ts.shards import MOMENT, Scoring
from xlstm_ts.streaming.serving import Server

try:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F
    from pyspark.sql.streaming import StatefulProcessor, StatefulProcessorHandle
except ImportError as err:
    raise BackendError(
        "Streams on Spark need PySpark 4 or later: install xlstm-ts[spark,onnx]."
    ) from err

from xlstm_ts.spark_columns import Table

STORE = "spark.sql.streaming.stateStore.providerClass"
ROCKS_DB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
PARTITIONS = "spark.sql.shuffle.partitions"
SHARD, POOL, VERSION = "shard", "pool", "version"
LIVE = 4  # servers that a process keeps: a shard may go on in another one
TRIES = 64  # labels tried for each shard, so that each partition gets one

# The servers that a process last had of each shard, by the version of the state that they are at.
_live: dict[tuple[Scoring, int], tuple[str, Server]] = {}


def spark_stream(
    df: DataFrame,
    model: str | os.PathLike[str],
    *,
    key: str | Sequence[str],
    time: str,
    value: str | Sequence[str],
    margin: float | None = 0.5,
    expire_after: timedelta | None = None,
    shards: int | None = None,
) -> DataFrame:
    """Forecast and alarm at each reading of a streaming frame, with a stream for each key.

    Parameters
    ----------
    df : DataFrame
        A streaming frame with a row for each reading.
    model : path-like
        A file of `export_onnx`, which is sent to the workers. It may go by the calendar, but not by
        other covariates.
    key : str or sequence of str
        The columns, texts or integers, that name the stream.
    time : str
        The column of times: TIMESTAMP, or TIMESTAMP_NTZ or DATE as the clock of the fit shows it.
    value : str or sequence of str
        The columns of the readings: by name where they are called as the channels of the model,
        otherwise in the order of these. Null and NaN are missing readings.
    margin : float or None, default=0.5
        Alarm readings that lie so many widths of their band outside of it, as forecast one reading
        before; None alarms nothing.
    expire_after : timedelta, optional
        Forget keys whose last reading is longer ago, by the times of the readings. None keeps all.
    shards : int, optional
        How many pools the keys are divided into; by default one for each partition of a shuffle
        (`spark.sql.shuffle.partitions`). It cannot change while a checkpoint is used.

    Returns
    -------
    DataFrame
        A streaming frame, for the output mode "append": a row for each reading and channel with the
        columns of `key` and `time`, then `channel`, `value`, `forecast` (the next readings),
        `quantiles` (the same for each level, lowest first), `alarm` ("below", "above" or null),
        `bound` (which was crossed) and `error`: why the reading was left out, null where it was
        not.

    Raises
    ------
    ValueError
        Where a column is missing or of the wrong type, or the state store is not RocksDB.
    StreamError
        Where the model asks for more than a key, a time and values.

    Notes
    -----
    Within a micro-batch each key is served in the order of its times. A reading whose time is not
    after the last one of its key is left out and has its `error`, as all that a stream refuses.

    The same micro-batches give the same bits, after any failure too. Other cuts of the same
    readings may differ in the last bit of float32, as those of a `StreamPool` may. Each micro-batch
    holds its readings in memory: limit it (`maxFilesPerTrigger`, `maxOffsetsPerTrigger`).

    Examples
    --------
    >>> spark.conf.set(  # doctest: +SKIP
    ...     "spark.sql.streaming.stateStore.providerClass",
    ...     "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    ... )
    >>> readings = spark.readStream.format("delta").table("readings")  # doctest: +SKIP
    >>> given = spark_stream(readings, "model.onnx", key="pump", time="at", value="kW")
    ... # doctest: +SKIP
    >>> query = given.writeStream.option("checkpointLocation", "checkpoint").toTable("forecasts")
    ... # doctest: +SKIP
    """
    spark = df.sparkSession
    if not df.isStreaming:
        raise ValueError("`df` must be a streaming frame; of another one use score_batch.")
    if spark.conf.get(STORE, None) != ROCKS_DB:
        raise ValueError(f"The state needs RocksDB: spark.conf.set({STORE!r}, {ROCKS_DB!r}) first.")
    shards = int(spark.conf.get(PARTITIONS)) if shards is None else shards
    check_integer("shards", shards, least=1)
    table = Table.of(df, key=key, time=time, value=value)
    scoring = table.scoring(model, margin=margin, expire_after=expire_after)
    contract = scoring.model().contract
    readings = table.plain(df, contract.channels)
    labels = F.array(*map(F.lit, _labels(spark, shards)))
    place = F.pmod(F.xxhash64(*table.plain_keys), F.lit(shards)).cast("int")
    readings = readings.withColumn(SHARD, F.element_at(labels, place + 1))
    given = readings.groupBy(SHARD).transformWithStateInPandas(
        statefulProcessor=ShardProcessor(scoring, shards=shards),
        outputStructType=table.schema,
        outputMode="Append",
        timeMode="None",
    )
    return table.named(given, contract)


def score_batch(
    df: DataFrame,
    model: str | os.PathLike[str],
    *,
    key: str | Sequence[str],
    time: str,
    value: str | Sequence[str],
    margin: float | None = 0.5,
) -> DataFrame:
    """Forecast and alarm at each reading of a frame of many series, each from its first on.

    Parameters
    ----------
    df : DataFrame
        A frame, not streaming, with a row for each reading.
    model, key, time, value, margin
        As for `spark_stream`.

    Returns
    -------
    DataFrame
        As of `spark_stream`, to the rounding of float32.

    Raises
    ------
    ValueError
        Where a column is missing or of the wrong type.
    StreamError
        Where the model asks for more than a key, a time and values.
    """
    if df.isStreaming:
        raise ValueError("`df` is a streaming frame: use spark_stream.")
    table = Table.of(df, key=key, time=time, value=value)
    scoring = table.scoring(model, margin=margin, expire_after=None)

    def score(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        # All readings of a partition come here, a piece after the other.
        server = scoring.serve()
        for frame in frames:
            if len(frame):
                yield scoring.score(server, frame)

    # A series lies in one partition, and by time all of them go on together.
    contract = scoring.model().contract
    readings = table.plain(df, contract.channels).repartition(*table.plain_keys)
    readings = readings.sortWithinPartitions(MOMENT, *table.plain_keys)
    return table.named(readings.mapInPandas(score, table.schema), contract)


class ShardProcessor(StatefulProcessor):  # type: ignore[misc]
    """What a worker does with the readings of a shard in a micro-batch.

    Parameters
    ----------
    scoring : Scoring
        How readings are served.
    shards : int
        How many there are; a state that was written with another number is refused.
    """

    def __init__(self, scoring: Scoring, *, shards: int) -> None:
        self._scoring, self._shards = scoring, shards

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Open the two values of the state: which version it is, and the pool."""
        self._version = handle.getValueState(VERSION, "version STRING, shards INT")
        self._pool = handle.getValueState(POOL, "pool BINARY")

    def handleInputRows(  # noqa: N802 - the name is Spark's
        self, key: tuple[int], rows: Iterator[pd.DataFrame], timerValues: Any
    ) -> Iterator[pd.DataFrame]:
        """Serve the readings, and give the state back to Spark, which commits it with the batch."""
        place = (self._scoring, int(key[0]))
        server = self._server(place)
        frame = pd.concat([*rows], ignore_index=True)
        given = self._scoring.score(server, frame.drop(columns=SHARD))
        server.snapshot(state := BytesIO(), offset={})
        version = uuid4().hex
        self._pool.update((state.getvalue(),))
        self._version.update((version, self._shards))
        _live[place] = version, server  # the newest is the last
        if len(_live) > LIVE:
            del _live[next(iter(_live))]
        yield given

    def close(self) -> None:
        """Leave the live servers to the next micro-batch."""

    def _server(self, place: tuple[Scoring, int]) -> Server:
        """Return the server of a shard at the version of the state, live or from its snapshot.

        A task may have run before and failed, or another process may have gone on with the shard:
        only the version tells that a live one is what the state holds.
        """
        live = _live.pop(place, None)
        stored = self._version.get()
        if stored is None:
            return self._scoring.serve()
        version, shards = stored
        if shards != self._shards:
            raise StreamError(
                f"The checkpoint was written with {shards} shards, not {self._shards}: give "
                f"shards={shards}, or begin with a new checkpoint."
            )
        if live is not None and live[0] == version:
            return live[1]
        server = self._scoring.serve()
        server.restore(BytesIO(self._pool.get()[0]))
        return server


def _labels(spark: SparkSession, shards: int) -> list[int]:
    """Return a number for each shard, so that each is alone in a partition where there are enough.

    Spark divides groups among partitions by the hash of what they are grouped by; the numbers 0, 1,
    2, ... would leave a third of the partitions empty.
    """
    label = F.col("id").cast("int")
    tried = spark.range(TRIES * shards).select(label, F.pmod(F.hash(label), F.lit(shards)))
    found: dict[int, int] = {}
    for number, partition in tried.collect():
        found.setdefault(partition, number)
    return [found[partition] for partition in range(shards)]
