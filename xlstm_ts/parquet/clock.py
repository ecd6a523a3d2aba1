"""The times of a stored panel: integers of one unit, on the grid of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from xlstm_ts.exceptions import SeriesError
from xlstm_ts.steps import complete_index, fixed_step

Integers = NDArray[np.int64]
# Rows of a series that tell its step.
SAMPLE = 10_000


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How integers are read as times.

    Parameters
    ----------
    unit : str or None
        "s", "ms", "us" or "ns" since 1970; None where readings are only counted.
    zone : str or None
        The time zone.
    freq : pandas offset or None
        The step; None where readings are only counted.
    step : int
        The step in the unit.
    name : str
        Of the column.
    """

    unit: Any
    zone: str | None
    freq: Any
    step: int
    name: str

    def index(self, first: int, length: int) -> pd.Index[Any]:
        """Return the index of `length` readings from an integer on."""
        if self.unit is None:
            return pd.RangeIndex(first, first + self.step * length, self.step, name=self.name)
        start = _stamps(np.array([first]), unit=self.unit, zone=self.zone)[0]
        return pd.date_range(start, periods=length, freq=self.freq, name=self.name, unit=self.unit)

    def told(self, time: int) -> str:
        """Return a time as text."""
        return str(_stamps(np.array([time]), unit=self.unit, zone=self.zone)[0])

    def has(self, first: int) -> bool:
        """Return whether a series may begin at a time: weeks have their day."""
        return (
            not isinstance(self.freq, pd.offsets.Week)
            or self.index(first, 1)[0]
            == (_stamps(np.array([first]), unit=self.unit, zone=self.zone)[0])
        )


def find_clock(
    times: Integers, *, unit: Any, zone: str | None, freq: str | None, name: str, where: str
) -> Clock:
    """Return the clock of a series that begins with these times.

    Raises
    ------
    SeriesError
        Where its step is unknown, none, or of no fixed length.
    """
    sample = _stamps(times[:SAMPLE], unit=unit, zone=zone)
    if unit is None:
        if freq is not None:
            raise SeriesError(
                f"`{where}` has integers as times, which have no step {freq!r}; leave `freq` out, "
                "or store timestamps."
            )
        index: Any = complete_index(sample, name=where)
        return Clock(unit=None, zone=None, freq=None, step=index.step, name=name)
    if freq is None and len(sample) == 1:
        raise SeriesError(
            f"`{where}` has one reading, and no series among the first rows has more: their step "
            "is unknown; give ParquetPanel(..., freq=...)."
        )
    offset: Any = to_offset(freq) if freq else complete_index(sample, name=where).freq  # type: ignore[attr-defined]
    length = fixed_step(offset)
    if length is None or (zone not in (None, "UTC") and length >= pd.Timedelta(days=1)):
        raise SeriesError(
            f"`{where}` has a step of {offset.freqstr}{f' in {zone}' if zone else ''}, which is "
            "not always as long; store days without a zone, and of months, years and working days "
            "give `fit` a frame: pandas.read_parquet(...)."
        )
    steps: Any = length / pd.Timedelta(1, unit=unit)
    if not steps.is_integer():
        raise SeriesError(f"A step of {offset.freqstr} is no whole number of {unit}.")
    return Clock(unit=unit, zone=zone, freq=offset, step=int(steps), name=name)


def _stamps(times: Integers, *, unit: str | None, zone: str | None) -> pd.Index[Any]:
    if unit is None:
        return pd.Index(times)
    stamps = pd.DatetimeIndex(times.view(f"M8[{unit}]"))
    return stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
