"""The season of a series: what a patch should be as long as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.panels import Outline, Panel
from xlstm_ts.steps import fixed_step

# Cycles that people and machines live by; the longest that a patch may span comes first.
CYCLES = (pd.Timedelta(days=1), pd.Timedelta(hours=1), pd.Timedelta(minutes=1))
LONGEST = 96
CALENDAR = {"D": 7, "B": 5, "W": 52, "M": 12, "MS": 12, "ME": 12, "Q": 4, "QS": 4, "QE": 4}
# A peak of the autocorrelation that rises less above its trough is no season.
LEAST_HEIGHT = 0.2


def season_length(panel: Panel | Outline) -> int:
    """Return the readings in one season of the longest series, 1 where it shows none.

    With a time step, the season is the day (24 for hourly readings) or, where that is more than
    96 readings, the hour or the minute; for daily readings and longer steps the week or the year.
    Where readings are only counted, it is the first peak of the autocorrelation.
    """
    index = panel.longest.index
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return _calendar_season(index)
    return _autocorrelation_season(panel.longest.values)


def _calendar_season(index: pd.DatetimeIndex | pd.PeriodIndex) -> int:
    offset: Any = index.freq
    step = fixed_step(offset)
    if step is not None and step < CYCLES[0]:
        counts = (cycle / step for cycle in CYCLES)
        return next((int(n) for n in counts if n.is_integer() and 1 < n <= LONGEST), 1)
    return CALENDAR.get(offset.rule_code.split("-")[0], 1) if offset.n == 1 else 1


def _autocorrelation_season(values: NDArray[np.float64]) -> int:
    """Return the lag of the first high peak of the mean autocorrelation."""
    centred = np.nan_to_num(values - np.nanmean(values, 0))
    length = len(centred)
    longest = min(LONGEST, length // 3)
    power = np.abs(np.fft.rfft(centred, 2 * length, axis=0)) ** 2
    products = np.fft.irfft(power, 2 * length, axis=0)[: longest + 2]
    energy = np.where(products[0] > 0, products[0], 1)
    correlation = (products / energy).mean(1)
    lags = range(2, longest + 1)
    # A peak counts by its height above the trough before it: a trend has neither.
    heights = {
        lag: correlation[lag] - correlation[:lag].min()
        for lag in lags
        if correlation[lag] == correlation[lag - 1 : lag + 2].max()
    }
    highest = max(heights.values(), default=0.0)
    if highest < LEAST_HEIGHT:
        return 1
    return next(lag for lag, height in heights.items() if height >= 0.8 * highest)
