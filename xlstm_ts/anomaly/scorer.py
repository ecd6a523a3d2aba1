"""What a reading says, in arrays: whitening, views, one raw score for each, levels and stillness.

All of it takes one stream, `(C,)`, or many as rows, `(B, C)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xlstm_ts.anomaly.aggregate import Aggregate
from xlstm_ts.anomaly.evidence import ForecastErrors, Views
from xlstm_ts.anomaly.settings import HostConfig
from xlstm_ts.anomaly.slow import SlowChannel
from xlstm_ts.anomaly.stages import Floats, Mask, Stage
from xlstm_ts.anomaly.stuck import StuckRule
from xlstm_ts.anomaly.whitening import Innovation, Whitening


class Findings(NamedTuple):
    """What a reading says, before anything is said of how rare that is.

    Attributes
    ----------
    innovation : Innovation
        The reading after the front of the chain.
    views : Views
        How far it is off, in channels that give evidence.
    errors : ndarray of float64, shape (..., views, C)
        The same as they count.
    raw : ndarray of float64, shape (..., scores)
        Raw scores, in the order of `aggregate.NAMES`; NaN is no evidence.
    slow : ndarray of float64, shape (..., C)
        How far the level is off, 1 at its limit.
    stuck, settled : ndarray of bool, shape (..., C)
        Channels that are stuck, and those that give evidence: neither new nor back from a long gap.
    """

    innovation: Innovation
    views: Views
    errors: Floats
    raw: Floats
    slow: Floats
    stuck: Mask
    settled: Mask

    def as_row(self) -> Findings:
        """Return what is found of one stream as the only row of many."""
        innovation, views, *others = self
        rows: list[Any] = [part[None] for part in others]
        return Findings(
            Innovation(*(part[None] for part in innovation)),  # type: ignore[arg-type]
            Views(*(part[None] for part in views)),
            *rows,
        )


class Scorer(Stage):
    """The stages from a raw reading to raw scores.

    Parameters
    ----------
    readings : ndarray of float64, shape (T, C)
        Readings of normal operation, from which units follow.
    config : HostConfig
        How it works.
    """

    STATE = ("whitening", "errors", "aggregate", "slow", "stuck", "settling")

    def __init__(self, readings: Floats, config: HostConfig) -> None:
        self.config, channels = config, readings.shape[1]
        self.whitening = Whitening(
            readings,
            n_lags=config.n_lags,
            forgetting=config.forgetting,
            half_life=config.half_life,
        )
        self.errors = ForecastErrors(channels, half_life=config.half_life)
        self.aggregate = Aggregate(channels, span=config.span)
        self.slow, self.stuck = SlowChannel(channels, span=config.slow_span), StuckRule(channels)
        self.settling = np.full(channels, config.warm_up)

    def begin(self, usual: float) -> None:
        """Forget the stream, but for what the head has learnt; a stretch starts at `usual`."""
        self.aggregate.running = np.array(usual)
        self.slow.reset()
        self.stuck.reset()
        self.settling[:] = self.config.warm_up

    def view(self, innovation: Innovation, quantiles: Floats | None) -> Views:
        """Return how far a reading is off, whether its channels give evidence or not."""
        level = np.where(self.slow.is_held, innovation.value - self.slow.reference, np.nan)
        error = self.errors.step(innovation.error, quantiles)
        return Views(error, level, innovation.recent, innovation.relation)

    def step(self, innovation: Innovation, quantiles: Floats | None) -> Findings:
        """Take an innovation, of which the model forecast `quantiles` `(..., C, Q)`."""
        settled = self._settle(innovation)
        views = self.view(innovation, quantiles).only(settled)
        errors = self.aggregate.weigh(views)
        raw = self.aggregate.step(errors)
        slow = np.where(settled & innovation.there, self.slow.step(innovation.value), 0.0)
        stuck = self.stuck.step(innovation.value) & settled
        return Findings(innovation, views, errors, raw, slow, stuck, settled)

    def _settle(self, innovation: Innovation) -> Mask:
        there = innovation.there
        is_back = there & (innovation.gap > self.config.max_gap)
        most = np.maximum(self.settling, self.config.settle)
        left = np.where(is_back, most, self.settling)
        self.settling = np.maximum(left - there, 0)
        return left <= 0
