"""One raw score of all channels for each view of a reading, and one of the last stretch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlstm_ts.anomaly.evidence import Views
from xlstm_ts.anomaly.stages import Floats, Stage, is_there, side_by_side

MOST = 1e6  # of an error: beyond anything rare, so that no two of the rarest tie
# A mean square, errors of a tenth of what is usual: below it is all the rounding of a model has to
# say of channels that stand still, and the rarest rounding is no news.
LEAST = 1e-2
# What a channel may be off in a fiftieth of training and still count as it is.
FAR, SHARE = 10.0, 0.02
# Means of squares and of log(1 + |error|) where errors are normal.
SQUARE, LOGARITHM = 1.0, 0.5
NAMES = ("point", "range", "level", "recent", "relation")


class Aggregate(Stage):
    """Mean squares over channels of the views, and a running mean of errors of the forecast.

    Squares have the tail of an exponential distribution where errors are normal, which is what
    `Tail` continues. The running mean is of log(1 + |error|), over channels too, so that neither
    one reading nor one channel fills it: it is high where much is a little off.

    Parameters
    ----------
    n_channels : int
        C, channels.
    span : float
        Span of the running mean, in readings.

    Attributes
    ----------
    running : ndarray of float64, shape (...)
        The running mean.
    regular : ndarray of float64, shape (views, C)
        What the errors of a channel are divided by: 1, or more where it regularly goes far off, as
        a switch does; else the others would not be heard beside it.
    square, logarithm : ndarray of float64, shape (views, C) and (C,)
        What a missing channel counts, at most that of normal errors: one that stands still has
        none, and must not look like news where it is missing.
    """

    STATE = ("running", "regular", "square", "logarithm")

    def __init__(self, n_channels: int, *, span: float) -> None:
        self.share = 2 / (span + 1)
        self.running = np.array(LOGARITHM)
        self.regular = np.ones((len(Views._fields), n_channels))
        self.square = np.full((len(Views._fields), n_channels), SQUARE)
        self.logarithm = np.full(n_channels, LOGARITHM)

    def fit(self, views: Sequence[Views]) -> None:
        """Learn from the views of normal operation how much each channel counts, missing or not."""
        errors = np.minimum(np.abs(np.array(views)), MOST)
        known = is_there(errors)
        count, errors = known.sum(0), np.where(known, errors, 0.0)
        seen = np.where(known | (count == 0), errors, np.nan)
        self.regular = np.maximum(np.nanquantile(seen, 1 - SHARE, axis=0) / FAR, 1.0)
        errors = errors / self.regular
        # No more than of normal errors: a mean of few large ones would be news.
        square = np.minimum((errors**2).sum(0) / np.maximum(count, 1), SQUARE)
        logarithm = np.minimum(np.log1p(errors[:, 0]).sum(0) / np.maximum(count[0], 1), LOGARITHM)
        self.square = np.where(count > 0, square, SQUARE)
        self.logarithm = np.where(count[0] > 0, logarithm, LOGARITHM)
        self.reset()

    def reset(self) -> None:
        """Begin a stretch, as of ordinary errors."""
        self.running = np.array(LOGARITHM)

    def weigh(self, views: Views) -> Floats:
        """Return errors as they count, `(..., views, C)`."""
        return side_by_side(*views) / self.regular

    def step(self, errors: Floats) -> Floats:
        """Return raw scores of what `weigh` gave, `(..., NAMES)`; NaN is no evidence."""
        squares = np.minimum(errors * errors, MOST**2)
        lately = np.log1p(np.minimum(np.abs(errors[..., 0, :]), MOST))
        there = is_there(squares)
        speaks: Any = there.any(-1)
        if not there.all():
            # A missing channel counts what it usually does: otherwise a few channels alone would be
            # taken for the mean of all.
            squares = np.where(there, squares, np.where(speaks[..., None], self.square, np.nan))
            lately = np.where(there[..., 0, :], lately, self.logarithm)
        channels, is_heard = errors.shape[-1], speaks[..., 0]
        moved = self.running + self.share * (lately.sum(-1) / channels - self.running)
        self.running = np.where(is_heard, moved, self.running)
        means = np.maximum(squares.sum(-1) / channels, LEAST)  # NaN stays
        # In the order of `NAMES`: the score of the stretch is the second.
        raw = np.concatenate((means[..., :1], self.running[..., None], means[..., 1:]), -1)
        raw[~is_heard] = np.nan
        return raw
