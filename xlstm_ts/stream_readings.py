"""Readings of a stream: what a caller gives, checked and as plain numbers."""

from __future__ import annotations

import numpy as np
from numpy.ma import MaskedArray
from numpy.typing import ArrayLike

from xlstm_ts.exceptions import StreamError

LARGEST = float(np.finfo(np.float32).max)


def read_reading(reading: ArrayLike, channels: tuple[str, ...]) -> list[float]:
    """Return one number a channel, NaN where missing; a single channel may come as a number.

    Raises
    ------
    StreamError
        Where there are more or fewer numbers than channels, or one is no number or beyond float32.
    """
    # This runs at every reading: Python is faster at few numbers than calls of numpy.
    if type(reading) is float:
        values, is_row = [reading], True
    else:
        array = _array(reading, channels)
        is_row = array.ndim < 2
        values = array.reshape(-1).tolist()
    if len(values) != len(channels) or not is_row:
        raise StreamError(
            f"A reading has shape ({len(channels)},), one value for each of "
            f"{', '.join(channels)}; got shape {np.shape(reading)}."
        )
    for value in values:
        if abs(value) > LARGEST:
            raise StreamError(
                f"The reading of {channels[values.index(value)]} is {value}, beyond float32; give "
                "NaN for a missing reading."
            )
    return values


def _array(reading: ArrayLike, channels: tuple[str, ...]) -> np.ndarray:
    try:
        if isinstance(reading, MaskedArray):
            reading = np.ma.filled(reading.astype(np.float64), np.nan)
        return np.asarray(reading, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(
            f"A reading has one number for each of {', '.join(channels)}, NaN where it is "
            f"missing; got {reading!r}."
        ) from err
