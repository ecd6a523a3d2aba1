"""The units of a channel: what readings are standardised by before a model sees them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# A spread below this share of the level is no spread: the float64 sums over a constant channel of
# ten million readings err by half of it.
ROUNDING = 3e-10


class Units(NamedTuple):
    """Mean and spread of readings, `(..., 1, C)`."""

    center: Floats
    spread: Floats

    def standardise(self, values: Floats) -> Floats:
        """Return readings `(..., T, C)` in these units."""
        return (values - self.center) / self.spread


def find_units(values: Floats) -> Units:
    """Return the units of readings `(..., T, C)`, NaN where missing.

    A channel that does not vary has spread 1; one without a reading also has centre 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing but NaN is an answer here
        center = np.nan_to_num(np.nanmean(values, -2, keepdims=True))
        spread = np.nan_to_num(np.nanstd(values, -2, keepdims=True))
    varies = spread > ROUNDING * np.abs(center)
    return Units(center, np.where(varies, spread, 1.0))
