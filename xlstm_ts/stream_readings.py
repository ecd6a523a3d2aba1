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
    # This runs at every reading, after the graph has emptied the caches: numpy would take its time.
    if type(reading) is np.ndarray and reading.ndim == 1 and reading.dtype.kind == "f":
        values = reading.tolist()
    else:
        values = _row(reading, channels)
    if len(values) != len(channels):
        raise _wrong_shape(np.shape(reading), channels)
    for value in values:
        if abs(value) > LARGEST:
            raise StreamError(
                f"The reading of {channels[values.index(value)]} is {value}, beyond float32; give "
                "NaN for a missing reading."
            )
    return values


def _row(reading: ArrayLike, channels: tuple[str, ...]) -> list[float]:
    try:
        if isinstance(reading, MaskedArray):
            reading = np.ma.filled(reading.astype(np.float64), np.nan)
        array = np.asarray(reading, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(
            f"A reading has one number for each of {', '.join(channels)}, NaN where it is "
            f"missing; got {reading!r}."
        ) from err
    if array.ndim > 1:
        raise _wrong_shape(array.shape, channels)
    return array.reshape(-1).tolist()


def _wrong_shape(shape: tuple[int, ...], channels: tuple[str, ...]) -> StreamError:
    return StreamError(
        f"A reading has shape ({len(channels)},), one value for each of {', '.join(channels)}; got "
        f"shape {shape}."
    )
