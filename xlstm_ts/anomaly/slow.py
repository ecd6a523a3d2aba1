"""The slow channel: whether the level of a channel has left what training knew.

What follows a series forgets: after a level shift its errors are small again. So the running mean
of each channel is also held against a reference that stays as it was. A channel that wanders
through training has no level to be held to, and will wander on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there, within

CLIP = 8.0  # spreads that one reading may count
MARGIN = 2.0  # of the farthest that training went
BLOCKS = 8  # of training, whose means tell whether a channel has a level
HALFWAY = 0.5  # to a limit: the farthest that training went
SETTLED = 1 / 250  # weight of a reading in a new level: seasons are to even out in it
NO_LIMIT = 1e9  # spreads; a number, for JSON has no infinity


class SlowChannel(Stage):
    """Running means of standardised readings beside a frozen reference.

    Parameters
    ----------
    n_channels : int
        C, channels.
    span : float
        Span of the running mean, in readings.

    Attributes
    ----------
    mean, reference, limit : ndarray of float64, shape (C,)
        The running mean, the frozen one, and how far they may lie apart; 1e9 for a channel without
        a level.
    away, since : ndarray of float64, shape (C,)
        Readings in a row halfway to the limit or beyond, and the running mean of them.
    """

    STATE = ("mean", "reference", "limit", "away", "since")

    def __init__(self, n_channels: int, *, span: float) -> None:
        self.share = 2 / (span + 1)
        self.span = span
        self.mean, self.reference = np.zeros(n_channels), np.zeros(n_channels)
        self.limit = np.ones(n_channels)
        self.away, self.since = np.zeros(n_channels), np.zeros(n_channels)

    def fit(self, series: Sequence[Floats]) -> None:
        """Learn how far the running mean goes in series of training, `(T, C)` standardised."""
        readings, parts = np.concatenate(series), []
        for one in series:
            self.mean = np.zeros_like(self.mean)
            means = np.stack([self._follow(reading) for reading in one])
            parts.append(means[min(len(means) - 1, int(self.span)) :])
        settled = np.concatenate(parts)
        self.reference = settled.mean(0)
        # Of noise alone a mean over the span wanders four of its own deviations at most.
        noise = 4 * np.sqrt(self.share / (2 - self.share))
        limit = MARGIN * np.maximum(np.abs(settled - self.reference).max(0), noise)
        self.limit = np.where(_wanders(readings), NO_LIMIT, limit)

    @property
    def is_held(self) -> Mask:
        """Which channels have a level, `(..., C)`."""
        return self.limit < NO_LIMIT

    def step(self, reading: Floats) -> Floats:
        """Return by how much each channel is off, 1 at its limit, `(..., C)`; NaN is missing."""
        off = np.abs(self._follow(reading) - self.reference) / self.limit
        self.away = np.where(off >= HALFWAY, self.away + 1, 0.0)
        known = within(np.where(is_there(reading), reading - self.since, 0.0), CLIP)
        share = np.maximum(1 / np.maximum(self.away, 1.0), SETTLED)
        self.since = np.where(self.away > 0, self.since + share * known, self.mean)
        return off

    def rebase(self, rows: Any = ...) -> None:
        """Take the level of channels that are away as their reference; others keep theirs.

        It is the mean since they left: the running one is where a season has come to. Of many
        streams `rows` are those that do; by default all.
        """
        level = np.where(self.away > 0, self.since, self.reference)
        for one in (self.reference, self.mean, self.since):
            one[rows] = level[rows]
        self.away[rows] = 0.0

    def reset(self) -> None:
        """Begin at the reference."""
        self.mean, self.since = self.reference.copy(), self.reference.copy()
        self.away = np.zeros_like(self.away)

    def _follow(self, reading: Floats) -> Floats:
        known = np.where(is_there(reading), reading, self.mean)
        known = self.reference + within(known - self.reference, CLIP)
        self.mean = self.mean + self.share * (known - self.mean)
        return self.mean


def _wanders(readings: Floats) -> Mask:
    """Return which channels of `(T, C)` vary more between blocks of time than within them."""
    known = np.where(is_there(readings), within(readings, CLIP), 0.0)
    means = [block.mean(0) for block in np.array_split(known, BLOCKS)]
    return np.var(means, axis=0) > known.var(0) / 2
