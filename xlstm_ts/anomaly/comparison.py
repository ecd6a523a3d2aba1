"""Raw scores of different views made alike, so that the rarest of them speaks for the reading.

The smallest of several p-values (L. H. C. Tippett, "The Methods of Statistics", 1931): a fault that
one view alone sees keeps nearly all of its weight, which a sum would spread over all of them. How
often the smallest is how small, the tail behind it learns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xlstm_ts.anomaly.aggregate import NAMES
from xlstm_ts.anomaly.stages import Floats, Stage
from xlstm_ts.anomaly.tail import Tail

# Decades. What is rarer is not learnt here: a fault would be learnt twice, in its view and in the
# tail of the largest, and the next one look usual.
RAREST = 3.0


class Comparison(Stage):
    """A tail for each raw score, in the order of `NAMES`."""

    STATE = NAMES

    def __init__(self) -> None:
        self.point, self.range = Tail(), Tail()
        self.level, self.recent, self.relation = Tail(), Tail(), Tail()

    @property
    def tails(self) -> tuple[Tail, ...]:
        """The tails in order."""
        return self.point, self.range, self.level, self.recent, self.relation

    def fit(self, raw: Floats) -> None:
        """Learn from raw scores of normal operation, `(T, views)`; NaN is missing.

        A view that never says anything, as of the others where there is one channel, stays silent.
        """
        for tail, scores in zip(self.tails, raw.T, strict=True):
            if not np.isnan(scores).all():
                tail.fit(scores)

    def surprises(self, raw: Sequence[float]) -> list[float]:
        """Return -log10 p of each raw score; 0 where it is missing."""
        pairs = zip(self.tails, raw, strict=True)
        return [0.0 if math.isnan(score) else tail.surprise(score) for tail, score in pairs]

    def step(self, raw: Sequence[float]) -> list[float]:
        """Return `surprises`, and take the scores in."""
        pairs = zip(self.tails, raw, strict=True)
        return [
            tail.step(score, learns_below=RAREST) if score == score else 0.0  # NaN is missing
            for tail, score in pairs
        ]
