"""From a score to a p-value: quantiles in the bulk, a generalised Pareto tail above them.

Streaming peaks over threshold (A. Siffer et al., "Anomaly Detection in Streams with Extreme Value
Theory", KDD 2017), with probability-weighted moments in place of likelihood (J. R. M. Hosking and
J. R. Wallis, "Parameter and Quantile Estimation for the Generalized Pareto Distribution", 1987):
closed form, so that each refit is cheap and cannot fail.
"""

from __future__ import annotations

import math

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage
from xlstm_ts.exceptions import SeriesError

BULK = (0.5, 0.8, 0.95)  # quantiles; the tail begins at the last
PEAKS = 400
MEMORY = PEAKS / (1 - BULK[-1])  # readings that the peaks stand for
REFIT = 5  # peaks
FEWEST = 10  # peaks for a shape of the tail; of fewer it is exponential
LARGEST_SHAPE = 0.5
NEVER_LEARNT = 5.0  # decades
MOST_ODD = 0.25  # of the peaks of training: more of them are no anomalies, but how things are
FARTHEST = 7.0  # decades, for records of clusters: they are few
MOST = 12.0  # decades that a score can tell
RARE = 2.0  # decades
CALM = 20  # scores that are not rare, which end a cluster
LONGEST = 1000  # scores; a cluster that lasts longer may be how things are
LEVELS = tuple(-math.log10(1 - quantile) for quantile in BULK)


class Tail(Stage):
    """The distribution of a score under normal operation; it goes on learning.

    Rare scores come in clusters of one cause, often a fault. Every score counts for the rate of the
    tail, but of a cluster only its records count for its shape: a few faults would otherwise make
    those that follow look usual.

    Parameters
    ----------
    largest_shape : float, default=0.5
        Of the generalised Pareto distribution, 0 to 0.5: how heavy a tail may be.

    Attributes
    ----------
    knots : tuple of float
        The least score seen in `fit`, and the quantiles 0.5, 0.8 and 0.95.
    rate : float
        Running share of scores above the last knot.
    shape, size : float
        Of the generalised Pareto distribution of what lies above it.
    """

    STATE = ("knots", "rate", "shape", "size", "peaks", "count", "calm", "length", "record")

    def __init__(self, *, largest_shape: float = LARGEST_SHAPE) -> None:
        self.largest_shape = largest_shape
        self.knots: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0)
        self.rate, self.shape, self.size = 1 - BULK[-1], 0.0, 1.0
        self.peaks = np.zeros(PEAKS)  # a ring of the last excesses
        self.count = 0
        self.calm, self.length, self.record = CALM + 1, 0, 0.0

    def fit(self, scores: Floats) -> None:
        """Learn from scores `(T,)` of normal operation; NaN is missing."""
        known = scores[np.isfinite(scores)]
        if not len(known):
            raise SeriesError("There is no score to learn a tail from: all are missing.")
        knots = np.array([known.min(), *np.quantile(known, BULK)])
        # Knots that touch, of a score that hardly varies, would divide by nothing.
        knots = knots + 1e-9 * max(1.0, abs(knots[-1])) * np.arange(4)
        self.knots = tuple(knots.tolist())
        above = known[known > self.knots[-1]] - self.knots[-1]
        self.rate = max(len(above), 1) / len(known)
        # Anomalies in training would make a tail of their own: those far off what the lower part of
        # the tail tells are left out.
        self.shape, self.size = _fit_quartiles(above, self.largest_shape)
        odd = np.array([self._beyond(one) >= NEVER_LEARNT for one in above.tolist()], bool)
        if np.count_nonzero(odd) <= MOST_ODD * len(odd):
            above = above[~odd]
        self.shape, self.size = _fit_pareto(above, self.largest_shape)
        last = above[-PEAKS:]
        self.peaks[: len(last)], self.count = last, len(last)

    def surprise(self, score: float) -> float:
        """Return -log10 p of a score."""
        low, half, most, start = self.knots
        if score > start:
            return min(MOST, self._beyond(score - start))
        if score > most:
            top = -math.log10(self.rate)
            return LEVELS[1] + max(0.0, top - LEVELS[1]) * (score - most) / (start - most)
        if score > half:
            return LEVELS[0] + (LEVELS[1] - LEVELS[0]) * (score - half) / (most - half)
        return LEVELS[0] * max(0.0, score - low) / (half - low)

    def step(self, score: float, *, learns_below: float) -> float:
        """Return `surprise`, and take the score in where that is below a limit."""
        surprise = self.surprise(score)
        if surprise < RARE and score <= self.knots[-1]:  # nearly all: no excess, and no cluster
            if self.calm <= CALM:
                self.calm += 1
            self.length += 1
            self.rate -= self.rate / MEMORY
        elif surprise < learns_below:
            self.update(score, surprise)
        return surprise

    def update(self, score: float, surprise: float) -> None:
        """Take in a score, unless it is so rare that it is hardly of normal operation."""
        is_peak = self._is_peak(surprise)
        is_record = is_peak and not self.calm
        if surprise >= (FARTHEST if is_record else NEVER_LEARNT):
            return
        excess = score - self.knots[-1]
        self.rate += ((excess > 0) - self.rate) / MEMORY
        if excess > 0 and is_peak:
            self.peaks[self.count % PEAKS] = excess
            self.count += 1
            if self.count % REFIT == 0:
                known = self.peaks[: min(self.count, PEAKS)]
                self.shape, self.size = _fit_pareto(known, self.largest_shape)

    def _is_peak(self, surprise: float) -> bool:
        """Follow clusters; return whether a score is outside of them or the record of one."""
        if surprise < RARE:
            if self.calm <= CALM:
                self.calm += 1
            self.length += 1
            return self.calm > CALM or self.length > LONGEST
        if self.calm >= CALM:
            self.length, self.record = 0, 0.0
        self.calm = 0
        self.length += 1
        is_record = surprise > self.record
        self.record = max(self.record, surprise)
        return is_record or self.length > LONGEST

    def _beyond(self, excess: float) -> float:
        ratio = excess / self.size
        if self.shape > 1e-6:
            ratio = math.log1p(self.shape * ratio) / self.shape
        return -math.log10(self.rate) + ratio / math.log(10)


def _fit_quartiles(excesses: Floats, largest_shape: float) -> tuple[float, float]:
    """Return shape and scale by two quartiles (J. Pickands, 1975), whatever lies above them."""
    if len(excesses) < FEWEST:
        return 0.0, float(excesses.mean()) if len(excesses) else 1.0
    half, most = np.quantile(excesses, (0.5, 0.75)).tolist()
    shape = min(max(math.log2(max(most - half, half) / half), 0.0), largest_shape)
    return shape, half * (shape / (2**shape - 1) if shape > 0 else 1 / math.log(2))


def _fit_pareto(excesses: Floats, largest_shape: float) -> tuple[float, float]:
    """Return shape and scale by probability-weighted moments; the shape is bounded.

    A shape below 0 would end the tail at a largest score, and each record would have p = 0.
    """
    if not len(excesses):
        return 0.0, 1.0
    mean = float(excesses.mean())
    ordered, count = np.sort(excesses), len(excesses)
    weights = 1 - (np.arange(1, count + 1) - 0.35) / count
    weighted = float(weights @ ordered) / count
    if count < FEWEST or mean - 2 * weighted <= 0:
        return 0.0, mean
    shape = 2 - mean / (mean - 2 * weighted)
    if shape <= 0:
        return 0.0, mean
    shape = min(shape, largest_shape)
    return shape, mean * (1 - shape)
