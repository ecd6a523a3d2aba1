"""Stretches of stored series, read together: each row group once, in the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlstm_ts.panels import Floats, TimeSeries
from xlstm_ts.parquet.clock import Integers
from xlstm_ts.parquet.files import read_rows
from xlstm_ts.parquet.index import Index
from xlstm_ts.pools import Place


class _Segment(NamedTuple):
    """Rows of a file, `[start, stop)`, and the place that they belong to, from its row `at` on."""

    start: int
    stop: int
    place: int
    at: int


def read_places(index: Index, places: Sequence[Place]) -> list[Floats]:
    """Return the readings of each place, `(stop - start,)`, NaN where missing."""
    segments: dict[int, list[_Segment]] = {}
    counts = []
    for number, place in enumerate(places):
        count = 0
        for file, row, length, begin, end in index.runs_of(place):
            # Which slots of the run are left out is not known: all may be before the place.
            missing = end - begin - length
            start = max(0, place.start - begin - missing)
            stop = min(length, place.stop - begin)
            if start < stop:
                part = _Segment(row + start, row + stop, number, count)
                segments.setdefault(file, []).append(part)
                count += stop - start
        counts.append(count)
    gappy = [bool(index.lengths[one.series] > index.rows[one.series]) for one in places]
    values = [np.empty(count) for count in counts]
    times = [
        np.empty(count if has else 0, np.int64) for count, has in zip(counts, gappy, strict=True)
    ]
    for file in sorted(segments):
        _fill(index, file, sorted(segments[file]), values, times)
    return [
        _on_grid(index, place, readings, stamps) if has else readings
        for place, readings, stamps, has in zip(places, values, times, gappy, strict=True)
    ]


def read_series(index: Index, places: Sequence[Place]) -> list[TimeSeries]:
    """Return places as series with their times."""
    clock, step = index.clock, index.clock.step
    return [
        TimeSeries(
            values=values[:, None],
            index=clock.index(int(index.first[place.series]) + place.start * step, len(values)),
        )
        for place, values in zip(places, read_places(index, places), strict=True)
    ]


def _fill(
    index: Index,
    file: int,
    segments: list[_Segment],
    values: list[Floats],
    times: list[Integers],
) -> None:
    with_times = any(len(times[one.place]) for one in segments)
    spans = [(one.start, one.stop) for one in segments]
    waiting = 0
    for row, readings, stamps in read_rows(
        index.files[file], index.long, spans, with_times=with_times
    ):
        end = row + len(readings)
        while waiting < len(segments) and segments[waiting].stop <= row:
            waiting += 1
        for one in segments[waiting:]:
            if one.start >= end:
                break
            if one.stop <= row:  # it began with one that goes on
                continue
            start, stop = max(one.start, row), min(one.stop, end)
            to = slice(one.at + start - one.start, one.at + stop - one.start)
            values[one.place][to] = readings[start - row : stop - row]
            if len(times[one.place]):
                times[one.place][to] = stamps[start - row : stop - row]


def _on_grid(index: Index, place: Place, readings: Floats, stamps: Integers) -> Floats:
    """Return readings at the times of a place, NaN where a time was left out."""
    slots = (stamps - index.first[place.series]) // index.clock.step - place.start
    grid = np.full(place.stop - place.start, np.nan)
    inside = (slots >= 0) & (slots < len(grid))
    grid[slots[inside]] = readings[inside]
    return grid
