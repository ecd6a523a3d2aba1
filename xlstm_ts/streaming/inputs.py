"""What one call of a pool is given: read as a whole, before any stream goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.ma import MaskedArray
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.columns import Beside, StreamColumns, Values
from xlstm_ts.streaming.readings import LARGEST, read_reading
from xlstm_ts.streaming.times import Time, Told, moment_after, read_times

Times = Time | Sequence[Time]


class Inputs(NamedTuple):
    """The inputs of a call, one row a key, in the order of the readings.

    Attributes
    ----------
    values : ndarray of float64, shape (keys, channels)
        The readings.
    columns : Beside or None
        What goes with them; None where the model has no columns.
    moments : list of int
        Their times in microseconds; none where none was told.
    """

    values: NDArray[np.float64]
    columns: Beside | None
    moments: list[int]


class InputReader:
    """Reads what a call of a pool is given.

    Parameters
    ----------
    contract : Contract
        What the graph says of itself.
    columns : StreamColumns
        Its covariates.
    """

    def __init__(self, contract: Contract, columns: StreamColumns) -> None:
        self._contract, self._columns = contract, columns

    def read(
        self,
        readings: Mapping[Any, ArrayLike],
        *,
        covariates: Mapping[Any, Values] | None,
        future: Mapping[Any, Values] | None,
        time: Times | Mapping[Any, Times] | None,
        last: Callable[[Any], int],
    ) -> Inputs:
        """Read all, as `StreamPool.step` takes it; `last` gives the moment before of a key.

        Raises
        ------
        StreamError
            Where something cannot be used; the message names the key.
        """
        for called, given in (
            ("readings", readings),
            ("covariates", covariates),
            ("future", future),
        ):
            if given is not None and not isinstance(given, Mapping):
                raise StreamError(f"`{called}` must come by key, as a mapping; got {given!r}.")
        if not self._contract.columns and not (covariates is None and future is None):
            raise StreamError("The model was trained without covariates: give the readings alone.")
        values = _values(readings, self._contract.channels)
        told = self._told(readings, time)
        moments = []
        for key, one in zip(readings, told):  # noqa: B905 - none where no time was told
            with naming(key):
                moments.append(moment_after(one, last(key), zone=self._contract.zone))
        if self._columns.is_calendar:
            told = [Told(one.wall, (at,)) for one, at in zip(told, moments, strict=True)]
        columns = self._read_columns(readings, covariates or {}, future or {}, told)
        return Inputs(values, columns, moments)

    def _told(
        self, readings: Mapping[Any, ArrayLike], time: Times | Mapping[Any, Times] | None
    ) -> list[Told]:
        """Return the time of each reading; none where none was told."""
        if time is None:
            return []
        zone, is_calendar = self._contract.zone, self._columns.is_calendar
        if not isinstance(time, Mapping):
            shared = read_times(time, zone=zone, is_calendar=is_calendar)
            return [shared] * len(readings)
        told: list[Told] = []
        before: Times | None = None
        for key in readings:
            with naming(key):
                if key not in time:
                    raise StreamError("`time` of the reading is missing.")
                given = time[key]
                # Keys that tick together are most often told one time, or the same text.
                is_text = type(given) is str is type(before)
                if told and (given is before or (is_text and given == before)):
                    told.append(told[-1])
                else:
                    told.append(read_times(given, zone=zone, is_calendar=is_calendar))
                before = given
        return told

    def _read_columns(
        self,
        readings: Mapping[Any, ArrayLike],
        covariates: Mapping[Any, Values],
        future: Mapping[Any, Values],
        told: list[Told],
    ) -> Beside | None:
        if not self._contract.columns or not readings:
            return None
        times: Sequence[Told | None] = told or [None] * len(readings)
        now, ahead = ([by_key.get(key) for key in readings] for by_key in (covariates, future))
        together = self._columns.read_together(now, ahead, times)
        if together is not None:
            return together
        columns = []
        for key, value, later, at in zip(readings, now, ahead, times, strict=True):
            with naming(key):
                columns.append(self._columns.read(value, later, at))
        return Beside.stack(columns)


@contextmanager
def naming(key: object) -> Iterator[None]:
    """Put the key in front of what is wrong with it."""
    try:
        yield
    except StreamError as err:
        raise StreamError(f"Key {key!r}: {err}") from err


def _values(readings: Mapping[Any, ArrayLike], channels: tuple[str, ...]) -> NDArray[np.float64]:
    """Return readings, `(keys, channels)`."""
    values = _at_once([*readings.values()], len(channels))
    if values is not None:
        return values
    # One by one, to name what is wrong or to read what numpy cannot read together.
    rows = np.empty((len(readings), len(channels)))
    for row, (key, reading) in zip(rows, readings.items(), strict=True):
        with naming(key):
            row[:] = read_reading(reading, channels)
    return rows


def _at_once(readings: list[ArrayLike], channels: int) -> NDArray[np.float64] | None:
    """Return readings `(keys, channels)` where they are plain numbers within float32."""
    # numpy would forget names of channels and masks, and warn of the mask of a single number.
    kinds = set(map(type, readings))
    if any(issubclass(kind, MaskedArray) or hasattr(kind, "keys") for kind in kinds):
        return None
    try:
        values = np.array(readings, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if values.ndim == 1 and channels == 1:
        values = values[:, None]
    is_plain = values.shape == (len(readings), channels) and not (abs(values) > LARGEST).any()
    return values if is_plain else None
