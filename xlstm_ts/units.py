"""The units of a channel: what readings are standardised by before a model sees them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlstm_ts.config import Transform
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.panels import Floats, Panel
from xlstm_ts.transforms import transformed

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

    A channel that does not vary has its level as spread, or 1 at zero or without a reading.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing but NaN is an answer here
        center = np.nan_to_num(np.nanmean(values, -2, keepdims=True))
        spread = np.nan_to_num(np.nanstd(values, -2, keepdims=True))
    return Units(center, usable_spread(center, spread))


def usable_spread(center: Floats, spread: Floats) -> Floats:
    """Return the spread, or where it is rounding alone the level, or 1 at zero."""
    varies = spread > ROUNDING * np.abs(center)
    level = np.where(center == 0, 1.0, np.abs(center))
    return np.where(varies, spread, level)


def restandardise(panel: Panel, units: Units | None, *, transform: Transform) -> list[Floats]:
    """Return each series in given units, or without them in those of its own readings."""
    series = [transformed(one.values, transform) for one in panel]
    return [(units or find_units(values)).standardise(values) for values in series]


def find_column_units(values: Floats) -> Units:
    """Return the units of columns `(T, X)`; flags, 0 or 1, keep theirs."""
    center, spread = find_units(values)
    is_flag = np.isin(values, (0, 1)) | np.isnan(values)
    flags = is_flag.all(0)
    return Units(np.where(flags, 0.0, center), np.where(flags, 1.0, spread))


def standardise(
    panel: Panel, *, n_train: Sequence[int], transform: Transform
) -> tuple[list[Floats], Units | None]:
    """Return each series in the units of its training readings, and those of a single one.

    Of many series none has units that are the model's: where it forecasts, each window has its
    own.

    Raises
    ------
    SeriesError
        Where a channel of a single series has no reading to train on.
    """
    series = [transformed(one.values, transform) for one in panel]
    units = [find_units(values[:count]) for values, count in zip(series, n_train, strict=True)]
    standard = [unit.standardise(values) for values, unit in zip(series, units, strict=True)]
    if not panel.is_single:
        return standard, None
    (one,), (count,) = panel, n_train
    silent = np.isnan(one.values[:count]).all(0)
    if silent.any():
        raise SeriesError(
            f"`y` column {panel.channels[int(silent.argmax())]!r} has no reading before its "
            f"validation tail (the last {len(one) - count} readings); drop it."
        )
    return standard, units[0]
