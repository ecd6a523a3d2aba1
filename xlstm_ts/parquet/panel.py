"""What a user says of Parquet files: where they are, and how much of them memory may hold."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas.tseries.frequencies import to_offset

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import BackendError

PathLike = str | os.PathLike[str]
# 8 MB of readings, and 16 MB of the places at which windows may begin.
POOL_ROWS = 2**21


@dataclass(frozen=True)
class ParquetPanel:
    """A long table of many series in Parquet files, for `XLSTMForecaster.fit`.

    The columns are those that the forecaster is told of: `id_column`, `time_column` and
    `target_column`; others are not read. Where the files have no column of series, folders may name
    them (`unique_id=a/`, as engines partition a table). In each file the rows of a series stand
    together, in the order of time. A series may go on in a later file. All have one step of fixed
    length; times that are left out are missing readings.

    Parameters
    ----------
    path : path-like or sequence of them
        A file, a folder with files `*.parquet` in it or below, or a list of files. Those of a
        folder are taken by name, numbers in it by size (`month=9` before `month=10`). What begins
        with "." or "_" is left out, but for folders as `_id=a`: engines keep their own files so.
    freq : str, optional
        The step, as pandas writes it ("h", "15min"). By default that of the longest series among
        the first rows.
    pool_rows : int, default=2**21
        Readings that each process holds to draw windows from. Of a larger panel it holds eight
        stretches, one of which is replaced every few steps.

    Raises
    ------
    ValueError
        Where `pool_rows` is no positive integer, or `freq` no step forward.

    Notes
    -----
    A panel that fits into the pool gives the windows of a fit in memory: the same weights, to the
    bit. See docs/parquet.md.
    """

    path: PathLike | Sequence[PathLike]
    freq: str | None = None
    pool_rows: int = POOL_ROWS

    def __post_init__(self) -> None:
        """Refuse a pool that holds nothing, and a step that is none."""
        check_integer("pool_rows", self.pool_rows, least=1)
        if self.freq is not None and not _is_step(self.freq):
            raise ValueError(
                f"`freq` must be a step forward as pandas writes it, such as 'h' or '15min'; got "
                f"{self.freq!r}."
            )

    def files(self) -> list[Path]:
        """Return the files in the order in which they are read.

        Raises
        ------
        FileNotFoundError
            Where one is not there, or a folder has none.
        BackendError
            Where pyarrow is not installed.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as err:
            raise BackendError(
                "Parquet files need pyarrow: pip install 'xlstm-ts[parquet]'."
            ) from err
        given = [self.path] if isinstance(self.path, str | os.PathLike) else self.path
        found: list[Path] = []
        for path in map(Path, given):
            inside = _inside(path) if path.is_dir() else [path]
            if not inside or not inside[0].exists():
                what = "no file *.parquet in" if path.is_dir() else "no file"
                raise FileNotFoundError(f"There is {what} {path}.")
            found += inside
        if not found:
            raise FileNotFoundError("`path` is an empty list; give the files of the panel.")
        return found


def _is_step(freq: str) -> bool:
    try:
        offset: Any = to_offset(freq)
    except ValueError:
        return False
    return bool(offset.n > 0)


def _inside(folder: Path) -> list[Path]:
    """Return the files in a folder and below; a table of Spark is a folder with such a name too."""
    found = (path for path in folder.rglob("*.parquet") if path.is_file())
    kept = (path for path in found if not any(map(_is_hidden, path.relative_to(folder).parts)))
    return sorted(kept, key=lambda path: [*map(_order, path.parts)])


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _order(part: str) -> tuple[list[str | int], str]:
    """Return what a name is sorted by: text and numbers in turn, then what tells `1` from `01`."""
    pieces = re.split(r"(\d+)", part)
    return [int(piece) if at % 2 else piece for at, piece in enumerate(pieces)], part
