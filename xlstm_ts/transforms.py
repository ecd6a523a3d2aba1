"""Transforms of readings: a model of their logarithm errs in proportion to their level.

Sales and loads that go from a few to thousands vary by percent, not by units; on the scale of the
logarithm they are alike, and no forecast falls below what the logarithm allows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.config import OFFSETS, Transform, lowest
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.panels import Floats, Panel


def transformed(values: NDArray[np.floating], transform: Transform) -> Floats:
    """Return readings on the scale that a model works on; NaN where there is none."""
    numbers = np.asarray(values, np.float64)
    if transform is None:
        return numbers
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(numbers + OFFSETS[transform]))


def restored(values: Floats, transform: Transform) -> Floats:
    """Return numbers on that scale as readings."""
    return values if transform is None else np.asarray(np.exp(values) - OFFSETS[transform])


def check_domain(panel: Panel, transform: Transform) -> None:
    """Refuse readings that have no logarithm.

    Raises
    ------
    SeriesError
        Where there is one; it names the first.
    """
    least = lowest(transform)
    for key, one in panel.series.items():
        below = one.values <= least
        if below.any():
            row, column = (int(place[0]) for place in below.nonzero())
            series = "" if key is None else f" of series {key!r}"
            raise SeriesError(
                f"`y` column {panel.channels[column]!r}{series} is {one.values[row, column]} at "
                f"{one.index[row]}, but target_transform={transform!r} needs readings above "
                f"{least:g}: "
                + ("take 'log1p', " if transform == "log" else "shift the readings, ")
                + "or fit without a transform."
            )
