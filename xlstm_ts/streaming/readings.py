"""Readings of a stream: what a caller gives, checked and as plain numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import SeriesWarning, StreamError
from xlstm_ts.export.contract import Contract

LARGEST = float(np.finfo(np.float32).max)


def read_reading(reading: ArrayLike, channels: tuple[str, ...]) -> list[float]:
    """Return one number a channel, NaN where missing; a single channel may come as a number.

    What names its channels, as a mapping or a row of a frame does, goes by the names.

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


def read_history(history: ArrayLike, channels: tuple[str, ...]) -> NDArray[np.float32]:
    """Return many readings `(T, C)`, each as for `read_reading`.

    Raises
    ------
    StreamError
        Where they have another number of channels, a number beyond float32, or none at all.
    """
    names = ", ".join(channels)
    if isinstance(history, list | tuple) and any(map(_is_read_alone, history)):
        history = [read_reading(row, channels) for row in history]
    try:
        history = _by_name(history, channels)
        if isinstance(history, MaskedArray):
            history = np.ma.filled(history.astype(np.float64), np.nan)
        values = np.asarray(history, np.float64)
    except StreamError:
        raise
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(
            f"`history` has a row of numbers, one for each of {names}, for each reading, NaN where "
            f"it is missing; got {history!r}."
        ) from err
    if values.ndim == 1 and len(channels) == 1:
        values = values[:, None]
    if values.ndim != 2 or not len(values) or values.shape[1] != len(channels):
        raise StreamError(
            f"`history` has shape (readings, {len(channels)}), one column for each of {names}, and "
            f"at least one reading; got shape {values.shape}."
        )
    beyond = np.argwhere(np.abs(values) > LARGEST)
    if len(beyond):
        row, column = beyond[0]
        raise StreamError(
            f"The reading of {channels[column]} in row {row} of `history` is "
            f"{values[row, column]}, beyond float32; give NaN for a missing reading."
        )
    return values.astype(np.float32)


class Domain:
    """Says once that a reading has no logarithm, where the model takes that.

    Parameters
    ----------
    contract : Contract
        That of the model.
    """

    def __init__(self, contract: Contract) -> None:
        self._lowest, self._channels = contract.lowest, contract.channels
        self._is_silent = contract.transform is None

    def check(self, readings: NDArray[Any], *, keys: Sequence[Any] = ()) -> None:
        """Look at readings `(rows, C)`, one a key where there are some.

        Warns
        -----
        SeriesWarning
            At the first that has none.
        """
        if self._is_silent or not (readings <= self._lowest).any():
            return
        self._is_silent = True
        row, channel = np.argwhere(readings <= self._lowest)[0]
        of_key = f"Key {keys[row]!r}: " if keys else ""
        warnings.warn(
            f"{of_key}The reading of {self._channels[channel]} is {readings[row, channel]:g}, but "
            f"the model takes the logarithm of what lies above {self._lowest:g}: it counts as a "
            "missing reading, as others like it will.",
            SeriesWarning,
            stacklevel=3,
        )


def _row(reading: ArrayLike, channels: tuple[str, ...]) -> list[float]:
    try:
        reading = _by_name(reading, channels)
        if isinstance(reading, MaskedArray):
            reading = np.ma.filled(reading.astype(np.float64), np.nan)
        array = np.asarray(reading, dtype=np.float64)
    except StreamError:
        raise
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(
            f"A reading has one number for each of {', '.join(channels)}, NaN where it is "
            f"missing; got {reading!r}."
        ) from err
    if array.ndim > 1:
        raise _wrong_shape(array.shape, channels)
    return array.reshape(-1).tolist()


def _by_name(given: ArrayLike, channels: tuple[str, ...]) -> ArrayLike:
    """Return what names its channels, as a mapping or a row of a frame does, in their order."""
    names = getattr(given, "keys", None)
    if isinstance(given, np.ndarray) or names is None:
        return given
    labels = list(names())
    keys = [str(label) for label in labels]
    # The label of a single number is most often a time; where no name is known there are none.
    if not isinstance(given, Mapping) and not set(keys) & set(channels):
        return given
    if sorted(keys) != sorted(channels):
        raise StreamError(
            f"A reading has one number for each of {', '.join(channels)}, got those of "
            f"{', '.join(keys)}; NaN is a missing one."
        )
    named: Any = given
    if isinstance(given, Mapping):
        parts = {key: named[label] for key, label in zip(keys, labels, strict=True)}
        arrays = [np.ma.array(parts[channel], np.float64) for channel in channels]
        return np.stack([np.ma.filled(array, np.nan) for array in arrays], -1)
    # As a whole: what is missing in a row of pandas need not be a number by itself.
    values: NDArray[np.float64] = np.asarray(named, np.float64)
    return values[..., [keys.index(channel) for channel in channels]]


def _is_read_alone(row: object) -> bool:
    """Return whether a row has names or a mask, which numpy forgets in a list of rows."""
    return isinstance(row, MaskedArray) or hasattr(row, "keys")


def _wrong_shape(shape: tuple[int, ...], channels: tuple[str, ...]) -> StreamError:
    return StreamError(
        f"A reading has shape ({len(channels)},), one value for each of {', '.join(channels)}; got "
        f"shape {shape}."
    )
