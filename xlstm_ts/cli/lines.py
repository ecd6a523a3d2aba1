"""Lines as they come: whole ones, in batches of what is there, from a pipe or a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from xlstm_ts.cli.stopping import Stop
from xlstm_ts.exceptions import StreamError

CHUNK = 2**16
BATCH = 256  # lines that are taken at once, at most


class Line(NamedTuple):
    """A line and its number, from 1."""

    number: int
    text: bytes


class NothingNow(NamedTuple):
    """Stands between lines where the next one may take its time."""


Arrival = Line | NothingNow


def read_lines(
    handle: int, *, stop: Stop, progress: Callable[[int], object] | None = None
) -> Iterator[Arrival]:
    """Yield the lines of an open file, the last one even where it has no end.

    From a pipe also what tells that nothing more is there now. `progress` is called with the bytes
    that were read.

    Raises
    ------
    StopAsked
        Where it waits for a line, once `stop` was asked.
    """
    is_file = stat.S_ISREG(os.fstat(handle).st_mode)
    rest, number = b"", 0
    while True:
        with stop.waiting():
            chunk = os.read(handle, CHUNK)
        if not chunk:
            break
        *texts, rest = (rest + chunk).split(b"\n")
        for number, text in enumerate(texts, start=number + 1):  # noqa: B020 - goes on from itself
            yield Line(number, text)
        if progress is not None:
            progress(len(chunk))
        if not is_file:
            yield NothingNow()
    if rest:
        yield Line(number + 1, rest)


def skip_lines(arrivals: Iterator[Arrival], last: int) -> Iterator[Arrival]:
    """Return what follows the line of that number.

    Raises
    ------
    StreamError
        Where there is no such line.
    """
    for arrival in arrivals:
        if isinstance(arrival, Line) and arrival.number >= last:
            return arrivals
    raise StreamError(
        f"The snapshot was written after line {last}, and the input has fewer: it is another "
        "input. Give the one that was read, or go on with --live."
    )


def batches(arrivals: Iterable[Arrival], *, every: int) -> Iterator[list[Line]]:
    """Yield batches of lines: full ones, or what there is before a wait.

    A batch also ends at each line whose number is a multiple of `every`. So lines that are all
    there, as those of a file, are always divided alike from the end of a batch on.
    """
    batch: list[Line] = []
    for arrival in arrivals:
        if isinstance(arrival, Line):
            batch.append(arrival)
            if len(batch) < BATCH and arrival.number % every:
                continue
        if batch:
            yield batch
            batch = []
    if batch:
        yield batch
