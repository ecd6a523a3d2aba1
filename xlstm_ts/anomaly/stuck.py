"""Stuck sensors: a value that does not change is no surprise to any forecast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there

SHORTEST = 8  # equal readings
LONGER = 3  # times the longest run of training
SPAN = 20  # readings of the running change
NEVER = 1e18  # readings
LITTLE = 0.05  # of the usual change
FAINTER = 10  # times less than the least change of training


class StuckRule(Stage):
    """Counts equal readings in a row, and watches for change that has nearly ended.

    Equal readings are no change: how many of them are stuck, the count says alone. A running change
    that they make smaller would call a counter stuck soon after the longest pause of training.

    Attributes
    ----------
    last, run, change : ndarray of float64, shape (C,)
        The last reading, how often it was repeated, and the running size of changes that are some.
    longest, least, usual : ndarray of float64, shape (C,)
        The run that is stuck, the change below which a channel is, and that of training.
    """

    STATE = ("last", "run", "change", "longest", "least", "usual")

    def __init__(self, n_channels: int) -> None:
        self.share = 2 / (SPAN + 1)
        self.last, self.run = np.full(n_channels, np.nan), np.ones(n_channels)
        self.change, self.usual = np.zeros(n_channels), np.zeros(n_channels)
        self.longest, self.least = np.full(n_channels, NEVER), np.zeros(n_channels)

    def fit(self, series: Sequence[Floats]) -> None:
        """Learn from series `(T, C)` how long and how still a channel may be; NaN is missing.

        What stands still in training for a third of it, as a switch does, is never stuck.
        """
        runs, changes = [], []
        for one in series:
            self.last, self.run = np.full_like(self.last, np.nan), np.ones_like(self.run)
            for reading in one:
                self.step(reading)
                runs.append(self.run)
                changes.append(self.change)
        seen = np.stack(changes)
        longest = np.stack(runs).max(0)
        self.usual = usual = seen.mean(0)
        self.longest = np.where(
            longest * 3 > len(seen), NEVER, np.maximum(SHORTEST, LONGER * longest + 1)
        )
        lowest = seen[min(2 * SPAN, len(seen) - 1) :].min(0)
        self.least = np.minimum(LITTLE * usual, lowest / FAINTER)

    def reset(self) -> None:
        """Forget the last readings, and keep what training taught."""
        self.last[:], self.run[:] = np.nan, 1.0
        self.change = np.maximum(self.usual, self.change)

    def step(self, reading: Floats) -> Mask:
        """Return which channels are stuck at `(..., C)`; a missing reading changes nothing."""
        there = is_there(reading)
        size = np.abs(reading - self.last)  # NaN where one of them is missing
        change = self.change + self.share * (size - self.change)
        self.change = np.where(size > 0, change, self.change)
        run = np.where(size == 0, self.run + 1, 1.0)
        self.run = np.where(there, run, self.run)
        self.last = np.where(there, reading, self.last)
        return there & ((self.run >= self.longest) | (self.change < self.least))
