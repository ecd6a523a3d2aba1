"""Covariates of a stream: what a step is told beside the reading, laid out for the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.calendars import calendar_columns
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract

Time = str | datetime | np.datetime64
Values = ArrayLike | Mapping[str, ArrayLike]


class StreamColumns:
    """The two inputs of the graph for covariates, in arrays of their own.

    Parameters
    ----------
    contract : Contract
        What the graph says of its columns.
    static : mapping or None
        A value for each static name: a number, or a category.

    Attributes
    ----------
    now, ahead : ndarray of float32, shape (1, columns) and (1, horizon, columns ahead)
        What the graph reads; columns as the contract has them.

    Raises
    ------
    StreamError
        Where a static value is missing, unknown or no number.
    """

    def __init__(self, contract: Contract, static: Mapping[str, Any] | None = None) -> None:
        roles = [column.role for column in contract.columns]
        self._contract = contract
        self._names = [c.name for c in contract.columns if c.role in ("past", "known")]
        self._known = [c.name for c in contract.columns if c.role == "known"]
        self._fields = [c.name for c in contract.columns if c.role == "cyclic"]
        self._cyclic = slice(len(roles) - len(self._fields), None)
        self.now = np.full((1, len(roles)), np.nan, np.float32)
        shape = (1, contract.horizon, len(self._known) + len(self._fields))
        self.ahead = np.full(shape, np.nan, np.float32)
        static = dict(static) if static is not None else {}
        statics = [column for column in contract.columns if column.role == "static"]
        self._check_static(static, {column.name for column in statics})
        for name in {column.name for column in statics if column.category is not None}:
            self._check_category(name, static[name])
        for place, column in enumerate(statics, start=len(self._names)):
            value = static[column.name]
            marked = value if column.category is None else str(value) == column.category
            self.now[0, place] = _numbers(marked, (), called=f"static[{column.name!r}]")

    def take(
        self,
        covariates: Values | None,
        future: Values | None,
        time: Time | Sequence[Time] | None,
    ) -> None:
        """Lay out what goes with the next reading.

        Raises
        ------
        StreamError
            Where something is missing that the model was trained with, or cannot be used; nothing
            is then changed.
        """
        horizon = self._contract.horizon
        now = self._values(covariates, self._names, (), called="covariates")
        ahead = self._values(future, self._known, (horizon,), called="future")
        cyclic = self._calendar(time)
        self.now[0, : len(self._names)] = now
        self.now[0, self._cyclic] = cyclic[0]
        self.ahead[0, :, : len(self._known)] = ahead
        self.ahead[0, :, len(self._known) :] = cyclic[1:]

    def take_history(
        self,
        length: int,
        covariates: Values | None,
        future: Values | None,
        time: Sequence[Time] | None,
    ) -> NDArray[np.float32]:
        """Return what goes with each of many readings, `(length, columns)`.

        What is known after the last of them is laid out in `ahead`.

        Raises
        ------
        StreamError
            As for `take`; nothing is then changed.
        """
        horizon = self._contract.horizon
        values = self._values(covariates, self._names, (length,), called="covariates")
        ahead = self._values(future, self._known, (horizon,), called="future")
        cyclic, cyclic_ahead = self._past_calendar(length, time)
        rows = np.repeat(self.now, length, axis=0)
        rows[:, : len(self._names)] = values
        rows[:, self._cyclic] = cyclic
        self.ahead[0, :, : len(self._known)] = ahead
        self.ahead[0, :, len(self._known) :] = cyclic_ahead
        return rows

    def _past_calendar(
        self, length: int, time: Sequence[Time] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the fields of the calendar at many readings, and at those after the last."""
        horizon = self._contract.horizon
        if not self._fields:
            return np.empty((length, 0)), np.empty((horizon, 0))
        times = [] if time is None or isinstance(time, str) else list(time)
        if len(times) not in (length, length + horizon):
            raise StreamError(
                f"`time` has one time for each of the {length} readings, or these and the "
                f"{horizon} after them; got {len(times)}."
            )
        past = calendar_columns(_times(times[:length], zone=self._contract.zone), self._fields)
        last = times[length - 1 :] if len(times) > length else times[-1]
        return past, self._calendar(last)[1:]

    def _check_static(self, static: Mapping[str, Any], names: set[str]) -> None:
        if names - static.keys():
            raise StreamError(
                f"The model knows each stream by {', '.join(sorted(names))}; give "
                f"create_stream(static={{...}}) with {', '.join(sorted(names - static.keys()))}."
            )
        if static.keys() - names:
            unknown = ", ".join(sorted(static.keys() - names))
            raise StreamError(f"The model has no static {unknown}; leave it out.")

    def _check_category(self, name: str, value: Any) -> None:
        known = [c.category for c in self._contract.columns if c.name == name]
        if str(value) not in known:
            raise StreamError(
                f"static[{name!r}] is {value!r}, of which the model knows nothing; it knows "
                f"{', '.join(map(str, known))}."
            )

    def _values(
        self, given: Values | None, names: list[str], rows: tuple[int, ...], *, called: str
    ) -> NDArray[np.float64]:
        """Return values `(*rows, names)`, given by name or in order."""
        shape = (*rows, len(names))
        if not names:
            if given is not None:
                raise StreamError(f"The model was trained without such columns: drop `{called}`.")
            return np.empty(shape)
        wanted = f"{', '.join(names)}" + (f", {rows[0]} values each" if rows else "")
        if given is None:
            raise StreamError(f"`{called}` is missing: give {wanted}, NaN where not known.")
        # A row of a frame goes by its names too; the times of a column are no names.
        keys = set(given.keys()) if hasattr(given, "keys") else set()
        if not isinstance(given, Mapping) and not keys & set(names):
            return _numbers(given, shape, called=called, wanted=wanted)
        if set(names) - keys:
            lacking = ", ".join(sorted(set(names) - keys))
            raise StreamError(f"`{called}` lacks {lacking}: give {wanted}.")
        by_name: Any = given
        columns = [_numbers(by_name[name], rows, called=f"{called}[{name!r}]") for name in names]
        return np.stack(columns, -1)

    def _calendar(self, time: Time | Sequence[Time] | None) -> NDArray[np.float64]:
        """Return the fields of the calendar now and at the next times, `(1 + horizon, fields)`."""
        horizon, seconds = self._contract.horizon, self._contract.seconds
        if not self._fields:
            return np.empty((horizon + 1, 0))
        if time is None:
            raise StreamError("`time` of the reading is missing: the model goes by the calendar.")
        times = _times(time, zone=self._contract.zone)
        if not times.ndim:
            if seconds is not None:
                steps = np.arange(horizon + 1) * round(seconds * 1e3)
                return calendar_columns(times + steps.astype("m8[ms]"), self._fields)
            raise StreamError(
                f"A step of {self._contract.step} has no fixed length: give as `time` those of the "
                f"reading and of the {horizon} next ones."
            )
        if times.shape != (horizon + 1,):
            raise StreamError(f"`time` is one time or {horizon + 1}, got {times.shape}.")
        return calendar_columns(times, self._fields)


def _times(time: Time | Sequence[Time], *, zone: str | None) -> NDArray[np.datetime64]:
    """Return times as the clock on the wall of the zone shows them, in milliseconds."""
    try:
        if isinstance(time, str | datetime | np.datetime64):
            return np.array(_wall_clock(time, zone), "M8[ms]")
        return np.array([_wall_clock(one, zone) for one in time], "M8[ms]")
    except StreamError:
        raise
    except (TypeError, ValueError) as err:
        raise StreamError(f"`time` cannot be read as a time: {time!r}.") from err


def _wall_clock(time: Time, zone: str | None) -> Time:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime) and time.tzinfo is not None:
        if zone is None:
            raise StreamError(
                f"`time` is {time}, but the fit was on times without a zone: give those of its "
                "clock, by time.replace(tzinfo=None)."
            )
        time = time.astimezone(_zone(zone)).replace(tzinfo=None)
    if np.isnat(np.datetime64(time)):
        raise ValueError("not a time")
    return time


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError) as err:  # an offset, or no database of zones
        raise StreamError(
            f"The zone {name} of the fit is not known here: give `time` without a zone, as its "
            "clock shows it."
        ) from err


def _numbers(
    given: ArrayLike, shape: tuple[int, ...], *, called: str, wanted: str = "a number"
) -> NDArray[np.float64]:
    try:
        if isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(np.float64), np.nan)
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError) as err:
        raise StreamError(f"`{called}` must be numbers, got {given!r}: give {wanted}.") from err
    # A single column may come without an axis of its own.
    if values.shape != shape and values.shape != tuple(n for n in shape if n > 1):
        raise StreamError(f"`{called}` has shape {values.shape}, expected {shape}: give {wanted}.")
    beyond = np.abs(values) > np.finfo(np.float32).max
    if beyond.any():
        raise StreamError(f"`{called}` holds {values[beyond].flat[0]}, beyond float32; give NaN.")
    return values.reshape(shape)
