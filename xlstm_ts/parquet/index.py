"""Where the series of a panel lie in its files."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xlstm_ts.panels import LongColumns
from xlstm_ts.parquet.clock import Clock, Integers
from xlstm_ts.parquet.files import StoredFile
from xlstm_ts.pools import Place


class Runs(NamedTuple):
    """Rows of one series that stand together: in which file, from which row on, and how many.

    Their times are among the slots `[start, stop)` of the series, each of them where rows and slots
    are as many.
    """

    file: Integers
    row: Integers
    length: Integers
    start: Integers
    stop: Integers


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where the series of a panel lie.

    Parameters
    ----------
    long : LongColumns
        Names of the columns.
    files : list of StoredFile
        The files, in order.
    clock : Clock
        The grid of their times.
    keys : list
        Names of the series.
    first, rows, lengths : ndarray of int64, shape (S,)
        First time of each series, its rows, and its readings, those left out included.
    runs : Runs
        Of all series, one after the other.
    run_ends : ndarray of int64, shape (S,)
        After how many runs those of each series end.
    digest : bytes
        Tells other readings apart.
    """

    long: LongColumns
    files: list[StoredFile]
    clock: Clock
    keys: list[Hashable]
    first: Integers
    rows: Integers
    lengths: Integers
    runs: Runs
    run_ends: Integers
    digest: bytes

    def runs_of(self, place: Place) -> Iterator[tuple[int, ...]]:
        """Yield the runs with slots of a place, in the order of time."""
        end = int(self.run_ends[place.series])
        first = int(self.run_ends[place.series - 1]) if place.series else 0
        skipped = np.searchsorted(self.runs.stop[first:end], place.start, side="right")
        taken = np.searchsorted(self.runs.start[first:end], place.stop)
        part = slice(first + skipped, first + taken)
        return zip(*(each[part].tolist() for each in self.runs), strict=True)
