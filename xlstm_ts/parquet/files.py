"""Parquet files as numpy arrays, a batch of rows at a time: the one place that calls pyarrow."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import SeriesError
from xlstm_ts.panels import Floats, LongColumns

Integers = NDArray[np.int64]
# Rows in memory at a time, and bytes of a column that are read ahead.
BATCH = 2**16
BUFFER = 2**20
# Types of Arrow. A column of nulls alone, as pandas writes it, has no type of its own.
TEXTS = ("string", "large_string", "string_view")
NUMBERS = ("floating", "integer", "decimal", "boolean", "null")


class StoredFile(NamedTuple):
    """A file as it was found: its size tells whether it changed.

    `groups` `(G + 1,)` are the rows before each row group, and all; `unit` and `zone` are those of
    its times; `has_text` says whether its series have names of text, or of integers; `series` is
    the one that its folder names, None where a column does.
    """

    path: str
    size: int
    groups: Integers
    unit: str | None
    zone: str | None
    has_text: bool
    series: Hashable | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of a file: where runs of one series start, their keys, times and readings."""

    row: int
    starts: Integers
    keys: list[Hashable]
    times: Integers
    values: Floats
    unit: str | None
    zone: str | None

    def key(self, at: int) -> Hashable:
        """Return the series of a row."""
        return self.keys[int(np.searchsorted(self.starts, at, side="right")) - 1]

    def told(self, at: int) -> str:
        """Return the time of a row as text."""
        time = self.times[at : at + 1]
        return str((time if self.unit is None else time.view(f"M8[{self.unit}]"))[0])


@contextmanager
def open_file(
    path: Path, long: LongColumns, folder: Hashable | None = None
) -> Iterator[tuple[StoredFile, Any]]:
    """Open a file and check its columns.

    Parameters
    ----------
    path : Path
        The file.
    long : LongColumns
        Names of the columns.
    folder : hashable, optional
        The series that its folder names; it is that of all rows where the file has no such column.

    Raises
    ------
    SeriesError
        Where it is no Parquet file, or a column is missing or of a type that cannot be used.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
        series = None if long.id in schema.names else folder
        for name in long if series is None else (long.time, long.target):
            if schema.names.count(name) != 1:
                raise SeriesError(
                    f"{path} has {'no' if name not in schema.names else 'more than one'} column "
                    f"{name!r}, but {', '.join(schema.names)}; name its columns by `id_column`, "
                    "`time_column` and `target_column`."
                )
        has_text = isinstance(series, str)
        if series is None:
            kind = _checked_type(path, long.id, schema, kinds=(*TEXTS, "integer"))
            has_text = _is_any(kind, TEXTS)
        _checked_type(path, long.target, schema, kinds=NUMBERS)
        _checked_type(path, long.time, schema, kinds=("timestamp", "date", "integer"))
        unit, zone = _time_of(schema.field(long.time).type)
        counts = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
        groups = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
        size = path.stat().st_size
        yield StoredFile(str(path), size, groups, unit, zone, has_text, series), file


def batches(file: Any, stored: StoredFile, long: LongColumns) -> Iterator[Batch]:
    """Yield all rows of a file.

    Raises
    ------
    SeriesError
        Where a row has no series or no time.
    """
    row = 0
    columns = long if stored.series is None else (long.time, long.target)
    for batch in file.iter_batches(BATCH, columns=list(columns)):
        if not len(batch):
            continue
        times, values = batch.column(long.time), batch.column(long.target)
        _check_known(times, long.time, stored, row=row)
        starts, keys = np.zeros(1, np.int64), [stored.series]
        if stored.series is None:
            ids = batch.column(long.id)
            _check_known(ids, long.id, stored, row=row)
            starts, keys = _runs(_plain(ids))
        yield Batch(
            row=row,
            starts=starts,
            keys=keys,
            times=_integers(times, stored),
            values=_floats(values),
            unit=stored.unit,
            zone=stored.zone,
        )
        row += len(batch)


def read_rows(
    stored: StoredFile, long: LongColumns, spans: Sequence[tuple[int, int]], *, with_times: bool
) -> Iterator[tuple[int, Floats, Integers]]:
    """Yield the rows around some spans of a file, in its order: each row group is read once.

    Parameters
    ----------
    stored : StoredFile
        The file.
    long : LongColumns
        Names of the columns.
    spans : sequence of (start, stop)
        Rows that are wanted.
    with_times : bool
        Whether times are read beside the readings.

    Yields
    ------
    tuple
        The first row, readings, and times, of which there are none where they are not asked for.

    Raises
    ------
    SeriesError
        Where the file is not as it was.
    """
    end = max(stop for _, stop in spans)
    wanted = np.zeros(len(stored.groups), bool)
    for start, stop in spans:
        inside = np.searchsorted(stored.groups, (start, stop - 1), side="right") - 1
        wanted[inside[0] : inside[1] + 1] = True
    columns = [long.target, long.time] if with_times else [long.target]
    path = Path(stored.path)
    with _opened(path) as file:
        if path.stat().st_size != stored.size:
            raise SeriesError(f"{path} changed while it was read; fit again.")
        for group in np.flatnonzero(wanted).tolist():
            row = int(stored.groups[group])
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
                times = batch.column(long.time) if with_times else None
                values = _floats(batch.column(long.target))
                yield row, values, _integers(times, stored) if with_times else np.empty(0, np.int64)
                row += len(batch)
                if row >= end:
                    return


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # What is damaged within is found while it is read.
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowInvalid, OSError) as err:
        raise SeriesError(f"{path} is no Parquet file, or is damaged: {err}") from err


def _check_known(column: Any, name: str, stored: StoredFile, *, row: int) -> None:
    if column.null_count:
        at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise SeriesError(f"{stored.path}, row {row + at} has no {name!r}; give it one.")


def _runs(ids: Any) -> tuple[Integers, list[Hashable]]:
    """Return where runs of one series start, and their series."""
    import pyarrow.compute as pc

    # pyarrow makes its functions when it is imported.
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))  # pyright: ignore
    heads = np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1
    starts = np.concatenate(([0], heads)).astype(np.int64)
    return starts, ids.take(_arrow(starts)).to_pylist()


def _checked_type(path: Path, name: str, schema: Any, *, kinds: tuple[str, ...]) -> Any:
    import pyarrow as pa

    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not _is_any(kind, kinds):
        raise SeriesError(
            f"{path} column {name!r} has type {kind}, which is none of {', '.join(kinds)}; store "
            "it as one of them."
        )
    return kind


def _is_any(kind: Any, names: tuple[str, ...]) -> bool:
    import pyarrow as pa

    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _time_of(kind: Any) -> tuple[str | None, str | None]:
    import pyarrow as pa

    if pa.types.is_date(kind):
        return "s", None
    return (kind.unit, kind.tz) if pa.types.is_timestamp(kind) else (None, None)


def _integers(column: Any, stored: StoredFile) -> Integers:
    import pyarrow as pa

    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp(stored.unit))
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _floats(column: Any) -> Floats:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _plain(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # There is no `take` of a string_view.
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _arrow(numbers: Integers) -> Any:
    import pyarrow as pa

    return pa.array(numbers)
