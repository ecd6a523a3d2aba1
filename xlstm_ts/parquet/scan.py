"""One pass over Parquet files: every check, how long each series is, and where its rows lie."""

from __future__ import annotations

import hashlib
import math
import warnings
from array import array
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.checks import is_far
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import LARGEST
from xlstm_ts.panels import LongColumns
from xlstm_ts.parquet.clock import Clock, Integers, find_clock
from xlstm_ts.parquet.files import Batch, StoredFile, batches, open_file
from xlstm_ts.parquet.folders import folder_series
from xlstm_ts.parquet.index import Index, Runs
from xlstm_ts.parquet.panel import ParquetPanel

SORTED = "sort each file by series and time"


def read_index(panel: ParquetPanel, *, long: LongColumns, lowest: float = -math.inf) -> Index:
    """Read all files once, a few thousand rows at a time.

    Parameters
    ----------
    panel : ParquetPanel
        The files.
    long : LongColumns
        Names of the columns.
    lowest : float
        What every reading has to lie above, for a fit of logarithms.

    Raises
    ------
    SeriesError
        Where a column is missing or of another type, a row has no series or no time, the rows of
        a series do not stand together or go back in time, times are there twice or are on no grid
        of one step, or a reading is no finite number of float32; it names file, series and row.

    Warns
    -----
    SeriesWarning
        Where times are left out, with their number.
    """
    scan = _Scan(long=long, freq=panel.freq, lowest=lowest)
    paths = panel.files()
    for path, folder in zip(paths, folder_series(paths, long.id), strict=True):
        scan.read(path, folder)
    return scan.index()


class _Run(NamedTuple):
    """Rows of one series in a batch, and where the widest of its steps ends."""

    key: Hashable
    row: int
    length: int
    first: int
    last: int
    told: int
    widest: int
    widest_row: int


class _Scan:
    """What is known of the series so far."""

    def __init__(self, *, long: LongColumns, freq: str | None, lowest: float) -> None:
        self.long, self.freq, self.lowest = long, freq, lowest
        self.files: list[StoredFile] = []
        self.clock: Clock | None = None
        self.place: dict[Hashable, int] = {}
        # Of each series: first and last time, rows, readings that are there, the file seen last,
        # and where the widest of its steps is.
        self.first, self.last, self.rows, self.told, self.file_of = (array("q") for _ in range(5))
        self.widest, self.widest_file, self.widest_row = (array("q") for _ in range(3))
        # Of each run: series, file, row, length, first and last time.
        self.runs = tuple(array("q") for _ in range(6))
        self.now: Hashable = None
        self.digest = hashlib.sha256()

    def read(self, path: Path, folder: Hashable | None) -> None:
        """Take in a file, in a folder that names a series or not."""
        self.now = None
        with open_file(path, self.long, folder) as (stored, file):
            self.files.append(stored)
            self._check_same_kinds(stored)
            for batch in batches(file, stored, self.long):
                self._take(batch)

    def index(self) -> Index:
        """Return what was found."""
        if self.clock is None:
            raise SeriesError(f"`{self.files[0].path}` has no rows; give at least one.")
        first, last, rows, told = (
            np.array(each, np.int64) for each in (self.first, self.last, self.rows, self.told)
        )
        keys = list(self.place)
        if not told.all():
            at = int((told == 0).argmax())
            raise SeriesError(
                f"{self.files[self.file_of[at]].path}, series {keys[at]!r} has no reading in "
                f"column {self.long.target!r}, only nulls and NaN; drop it."
            )
        lengths = (last - first) // self.clock.step + 1
        self._check_near(keys, lengths)
        self._warn_of_gaps(lengths - rows)
        series, file, row, length, begin, end = (np.array(each, np.int64) for each in self.runs)
        start, stop = ((time - first[series]) // self.clock.step for time in (begin, end))
        runs = (file, row, length, start, stop + 1)
        order = np.argsort(series, kind="stable")
        self.digest.update(repr(keys).encode() + first.tobytes() + lengths.tobytes())
        return Index(
            long=self.long,
            files=self.files,
            clock=self.clock,
            keys=keys,
            first=first,
            rows=rows,
            lengths=lengths,
            runs=Runs(*(each[order] for each in runs)),
            run_ends=np.bincount(series, minlength=len(keys)).cumsum(),
            digest=self.digest.digest(),
        )

    def _warn_of_gaps(self, missing: Integers) -> None:
        if missing.any():
            step = "one count" if self.clock is None else getattr(self.clock.freq, "freqstr", "")
            warnings.warn(
                f"The files leave out {missing.sum()} stamps in {np.count_nonzero(missing)} of "
                f"{len(missing)} series at their step of {step or 'one count'}; they are taken as "
                "missing readings.",
                SeriesWarning,
                stacklevel=2,
            )

    def _take(self, batch: Batch) -> None:
        """Take in rows that follow on those before."""
        self._check_values(batch)
        ends = np.append(batch.starts[1:], len(batch.times))
        inside = np.ones(len(batch.times), bool)
        inside[batch.starts] = False
        steps = np.diff(batch.times, prepend=batch.times[0])
        self._check_order(batch, inside & (steps <= 0))
        if self.clock is None:
            self.clock = self._find_clock(batch, ends)
        self._check_grid(batch, inside & (steps % self.clock.step != 0))
        self.digest.update(batch.times.tobytes())
        self.digest.update(np.where(np.isnan(batch.values), np.nan, batch.values).tobytes())
        steps[batch.starts] = 0
        told = np.add.reduceat(~np.isnan(batch.values), batch.starts)
        for key, known, start, end in zip(
            batch.keys, told.tolist(), batch.starts.tolist(), ends.tolist(), strict=True
        ):
            widest = start + int(steps[start:end].argmax())
            run = _Run(
                key=key,
                row=batch.row + start,
                length=end - start,
                first=int(batch.times[start]),
                last=int(batch.times[end - 1]),
                told=known,
                widest=int(steps[widest]),
                widest_row=batch.row + widest,
            )
            self._take_run(run)

    def _take_run(self, run: _Run) -> None:
        file, goes_on = len(self.files) - 1, run.key == self.now
        if run.key not in self.place:
            self._begin(run)
        at = self.place[run.key]
        if self.rows[at]:
            if not goes_on and self.file_of[at] == file:
                raise SeriesError(
                    f"{self._named(run.key, run.row)}: the rows of the series do not stand "
                    f"together, it was there before; {SORTED}."
                )
            self._check_follows(run, at)
            self._note_step(at, run.first - self.last[at], row=run.row)
        self._note_step(at, run.widest, row=run.widest_row)
        if goes_on and self._is_without_gap(run):
            self.runs[3][-1] += run.length
            self.runs[5][-1] = run.last
        else:
            noted = (at, file, run.row, run.length, run.first, run.last)
            for each, value in zip(self.runs, noted, strict=True):
                each.append(value)
        self.now, self.file_of[at] = run.key, file
        self.last[at] = run.last
        self.rows[at] += run.length
        self.told[at] += run.told

    def _is_without_gap(self, run: _Run) -> bool:
        """Return whether a run goes on with the one before it at each step, from its first on."""
        rows = self.runs[3][-1] + run.length
        return run.last - self.runs[4][-1] == (rows - 1) * self._known_clock().step

    def _note_step(self, at: int, step: int, *, row: int) -> None:
        if step > self.widest[at]:
            self.widest[at], self.widest_row[at] = step, row
            self.widest_file[at] = len(self.files) - 1

    def _begin(self, run: _Run) -> None:
        clock = self._known_clock()
        if not clock.has(run.first):
            raise SeriesError(
                f"{self._named(run.key, run.row)}: it begins at {clock.told(run.first)}, the "
                f"others have a step of {clock.freq.freqstr}; bring all to one day of the week."
            )
        self.place[run.key] = len(self.place)
        self.first.append(run.first)
        self.last.append(run.first)
        zeros = (self.rows, self.told, self.file_of)
        for each in (*zeros, self.widest, self.widest_file, self.widest_row):
            each.append(0)

    def _check_same_kinds(self, stored: StoredFile) -> None:
        first = self.files[0]
        kinds = [(each.unit, each.zone) for each in (first, stored)]
        if kinds[0] != kinds[1]:
            raise SeriesError(
                f"{stored.path} has times in {kinds[1]} (unit, zone), {first.path} in {kinds[0]}; "
                "store all in one."
            )
        if first.has_text != stored.has_text:
            names = [("integer", "text")[each.has_text] for each in (stored, first)]
            raise SeriesError(
                f"{stored.path} has names of series that are {names[0]}, {first.path} {names[1]}; "
                "store all as one."
            )

    def _check_follows(self, run: _Run, at: int) -> None:
        clock, last = self._known_clock(), self.last[at]
        if run.first <= last:
            where = f"in {self.files[self.file_of[at]].path}"
            if self.file_of[at] == len(self.files) - 1:
                where = "in the row before"
            raise SeriesError(
                f"{self._named(run.key, run.row)}: time {clock.told(run.first)} is not after "
                f"{clock.told(last)} {where}; {SORTED}, and name files in the order of time."
            )
        if (run.first - last) % clock.step:
            raise SeriesError(f"{self._named(run.key, run.row)}: {self._off_grid(run.first, last)}")

    def _check_near(self, keys: list[Hashable], lengths: Integers) -> None:
        for at, length in enumerate(lengths.tolist()):
            if is_far(length - 1, length=self.rows[at]):
                where = f"{self.files[self.widest_file[at]].path}, series {keys[at]!r}"
                raise SeriesError(
                    f"{where}, row {self.widest_row[at]}: its time comes after a gap of many times "
                    "its length; correct the time, or use the readings after it."
                )

    def _check_order(self, batch: Batch, is_wrong: NDArray[np.bool_]) -> None:
        if is_wrong.any():
            at = int(is_wrong.argmax())
            time, before = batch.told(at), batch.told(at - 1)
            what = f"has the time {time} twice" if time == before else f"{time} after {before}"
            cure = "keep one row of each time" if time == before else SORTED
            raise SeriesError(f"{self._named(batch.key(at), batch.row + at)}: {what}; {cure}.")

    def _check_grid(self, batch: Batch, is_wrong: NDArray[np.bool_]) -> None:
        if is_wrong.any():
            at = int(is_wrong.argmax())
            what = self._off_grid(batch.times[at], batch.times[at - 1])
            raise SeriesError(f"{self._named(batch.key(at), batch.row + at)}: {what}")

    def _check_values(self, batch: Batch) -> None:
        is_wrong = (np.abs(batch.values) > LARGEST) | (batch.values <= self.lowest)
        if is_wrong.any():
            at = int(is_wrong.argmax())
            rule = f"finite float32 numbers (up to {LARGEST:.1e}), null or NaN where missing"
            if batch.values[at] <= self.lowest and math.isfinite(batch.values[at]):
                rule = f"readings above {self.lowest:g} for its target_transform"
            raise SeriesError(
                f"{self._named(batch.key(at), batch.row + at)}: {self.long.target!r} is "
                f"{batch.values[at]}; the fit needs {rule}."
            )

    def _find_clock(self, batch: Batch, ends: Integers) -> Clock:
        longest = int((ends - batch.starts).argmax())
        return find_clock(
            batch.times[batch.starts[longest] : ends[longest]],
            unit=batch.unit,
            zone=batch.zone,
            freq=self.freq,
            name=self.long.time,
            where=f"{self.files[-1].path}` series `{batch.keys[longest]}",
        )

    def _known_clock(self) -> Clock:
        if self.clock is None:
            raise RuntimeError("The first rows settle the clock.")
        return self.clock

    def _off_grid(self, time: int, before: int) -> str:
        clock = self._known_clock()
        step = clock.step if clock.freq is None else clock.freq.freqstr
        return (
            f"{clock.told(time)} is no whole number of steps of {step} after {clock.told(before)}; "
            "bring all series to one step, or name it: ParquetPanel(..., freq=...)."
        )

    def _named(self, key: Hashable, row: int) -> str:
        return f"{self.files[-1].path}, series {key!r}, row {row}"
