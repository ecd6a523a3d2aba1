"""Windows of series that are not in memory: drawn from a pool of stretches that changes slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from xlstm_ts.checks import check_integer
from xlstm_ts.windows import Columns, WindowSampler, evenly

# Stretches in a pool, each read in one go; of a shuffle of all of them, one takes another's place.
BLOCKS = 8
# A stretch is read for no fewer steps than these: reading must not cost more than training.
LEAST_STEPS = 8


class Place(NamedTuple):
    """Readings `[start, stop)` of a series."""

    series: int
    start: int
    stop: int


Part = tuple[Tensor, Columns]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Series that are read when they are needed.

    Parameters
    ----------
    lengths : sequence of int
        Readings of each series.
    read : callable
        Returns standardised readings `(T, C)` and columns of places, as they are in memory.
    pool_rows : int
        Readings that a process may hold to draw windows from.
    prepare : callable
        Called once with the series of this process, as a range, before any of them is read.
    """

    lengths: Sequence[int]
    read: Callable[[Sequence[Place]], list[Part]]
    pool_rows: int
    prepare: Callable[[range], None]


class PoolSampler:
    """Gives the sampler of each step: a function of the step and a seed, of nothing before.

    Parameters
    ----------
    blocks : sequence of sequence of Place
        Neighbouring places that are read together.
    read : callable
        As of `Stored`.
    make : callable
        Returns the sampler of some parts.
    max_steps : int
        Steps of the training, over which the blocks are spread.
    seed : int
        Of their order.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[Place]],
        *,
        read: Callable[[Sequence[Place]], list[Part]],
        make: Callable[[list[Part]], WindowSampler],
        max_steps: int,
        seed: int,
    ) -> None:
        self.blocks, self.read, self.make = blocks, read, make
        self.order = np.random.default_rng(seed).permutation(len(blocks))
        self.steps = max(LEAST_STEPS, max_steps // len(blocks))
        self._turn = -1
        self._held: dict[int, list[Part]] = {}
        self._sampler: WindowSampler | None = None

    def at(self, step: int) -> WindowSampler:
        """Return what cuts the windows of a step."""
        turn = step // self.steps if len(self.blocks) > BLOCKS else 0
        if self._sampler is None or turn != self._turn:
            self._sampler = None  # two pools would not fit
            chosen = self.chosen(turn)
            self._held = {n: self._held[n] for n in chosen if n in self._held}
            self._held |= {n: self.read(self.blocks[n]) for n in chosen if n not in self._held}
            self._turn = turn
            self._sampler = self.make([part for n in chosen for part in self._held[n]])
        return self._sampler

    def chosen(self, turn: int) -> list[int]:
        """Return the blocks of a pool: the next ones of a shuffle that goes round."""
        count = len(self.blocks)
        if count <= BLOCKS:
            return list(range(count))
        return self.order[np.arange(turn, turn + BLOCKS) % count].tolist()


def cut_blocks(
    counts: Sequence[int], series: range, *, length: int, pool_rows: int
) -> list[list[Place]]:
    """Return the readings to train on in blocks of neighbours: each window lies in one place.

    Parameters
    ----------
    counts : sequence of int
        Readings of each series to train on.
    series : range
        The series of this process.
    length : int
        Readings of a window.
    pool_rows : int
        Readings that a pool may hold.

    Raises
    ------
    ValueError
        Where a block would be shorter than two windows.
    """
    if sum(counts[n] for n in series) <= pool_rows:
        return [[Place(n, 0, counts[n]) for n in series if counts[n]]]
    check_integer("pool_rows", pool_rows, least=2 * BLOCKS * length)
    blocks: list[list[Place]] = [[]]
    room = most = pool_rows // BLOCKS
    for place in _places(counts, series, length=length, most=most):
        if place.stop - place.start > room:
            blocks.append([])
            room = most
        blocks[-1].append(place)
        room -= max(length, place.stop - place.start)
    return [block for block in blocks if block]


def _places(counts: Sequence[int], series: range, *, length: int, most: int) -> Iterator[Place]:
    for number in series:
        stop = 0
        while stop < counts[number]:
            # The next stretch begins with the first window that this one has no room for.
            start = max(0, stop - length + 1)
            stop = min(counts[number], start + most)
            yield Place(number, start, stop)


def own_series(counts: Sequence[int], *, length: int, own: Callable[[int], slice]) -> range:
    """Return the series of this process: neighbours, with about as many windows as the others'.

    Parameters
    ----------
    counts : sequence of int
        Readings of each series to train on.
    length : int
        Readings of a window.
    own : callable
        Returns which of so many are those of this process.
    """
    numbers = np.asarray(counts)
    windows = np.where(numbers > 0, np.maximum(1, numbers - length + 1), 0)
    ends = windows.cumsum()
    part = range(int(ends[-1]))[own(int(ends[-1]))]
    # A series belongs to whose part has its middle; those without windows, to a neighbour.
    middles = ends - windows / 2
    start, stop = np.searchsorted(middles, (part.start, part.stop)).tolist()
    return range(start, len(counts) if part.stop == ends[-1] else stop)


def spread_places(
    lengths: Sequence[int], counts: Sequence[int], *, context_length: int, horizon: int, most: int
) -> list[Place]:
    """Return windows that end in the tails of series, about `most`, evenly over all of them.

    They are those of `WindowSampler.spread` over all tails and the contexts before them.
    """
    last, count = np.asarray(lengths), np.asarray(counts)
    starts = np.maximum(0, count - context_length)
    length = context_length + horizon
    windows = np.where(count < last, np.maximum(1, last - starts - length + 1), 0)
    ends = windows.cumsum()
    total = int(ends[-1])
    if not total:
        return []
    chosen = evenly(total, max(1, min(total, most))).numpy()
    series = np.searchsorted(ends, chosen, side="right")
    begin = starts[series] + chosen - (ends - windows)[series]
    stop = np.minimum(last[series], begin + length)
    return [Place(*each) for each in np.stack((series, begin, stop), 1).tolist()]
