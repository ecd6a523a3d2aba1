"""Covariates of a stream: what a step is told beside the reading, laid out for the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.calendars import calendar_columns
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.histories import History
from xlstm_ts.streaming.readings import LARGEST
from xlstm_ts.streaming.times import Told

Array = NDArray[np.float32]
Values = ArrayLike | Mapping[str, ArrayLike]


class Beside(NamedTuple):
    """What goes with a reading, or with many: raw values as the graph takes them, no static ones.

    Attributes
    ----------
    now : ndarray of float64, shape (..., past and known columns)
        At the time of the reading.
    ahead : ndarray of float64, shape (..., horizon, known columns)
        At the times of the next ones.
    cyclic : ndarray of float64, shape (..., 1 + horizon, fields)
        The calendar at all of these times.
    """

    now: NDArray[np.float64]
    ahead: NDArray[np.float64]
    cyclic: NDArray[np.float64]

    @classmethod
    def stack(cls, each: Sequence[Beside]) -> Beside:
        """Return what goes with many readings by what goes with each of them."""
        return cls(*map(np.array, zip(*each, strict=True)))


class StreamColumns:
    """Reads covariates, and lays them out in the two inputs of the graph.

    Parameters
    ----------
    contract : Contract
        What the graph says of its columns.

    Attributes
    ----------
    statics : int
        Static columns.
    is_calendar : bool
        Whether there are fields of the calendar.
    """

    def __init__(self, contract: Contract) -> None:
        roles = [column.role for column in contract.columns]
        self._contract = contract
        self._names = [c.name for c in contract.columns if c.role in ("past", "known")]
        self._known = [c.name for c in contract.columns if c.role == "known"]
        self._statics = [column for column in contract.columns if column.role == "static"]
        self._fields = [c.name for c in contract.columns if c.role == "cyclic"]
        self._static = slice(len(self._names), len(roles) - len(self._fields))
        self._cyclic = slice(len(roles) - len(self._fields), None)
        self._steps = Steps(contract)
        self.statics, self.is_calendar = len(self._statics), bool(self._fields)
        # Of the last stamp: keys of a pool that tick together share their calendar.
        self._latest: tuple[Any, NDArray[np.float64]] = (None, np.empty(0))

    def empty(self, batch: int) -> tuple[Array, Array]:
        """Return the two inputs for a batch of streams of which nothing is known yet.

        Returns
        -------
        now, ahead : ndarray of float32, shapes (batch, columns) and (batch, horizon, columns ahead)
            Columns as the contract has them.
        """
        columns = len(self._contract.columns)
        ahead = (batch, self._contract.horizon, len(self._known) + len(self._fields))
        return np.full((batch, columns), np.nan, np.float32), np.full(ahead, np.nan, np.float32)

    def read_static(self, static: Mapping[str, Any] | None) -> Array:
        """Return the static columns of a stream, by what is static of it.

        Raises
        ------
        StreamError
            Where a value is missing, unknown or no number.
        """
        static = dict(static) if static is not None else {}
        self._check_static(static, {column.name for column in self._statics})
        for name in {column.name for column in self._statics if column.category is not None}:
            self._check_category(name, static[name])
        row = np.empty(len(self._statics), np.float32)
        for place, column in enumerate(self._statics):
            value = static[column.name]
            marked = value if column.category is None else str(value) == column.category
            row[place] = _numbers(marked, (), called=f"static[{column.name!r}]")
        return row

    def read(self, covariates: Values | None, future: Values | None, told: Told | None) -> Beside:
        """Read what goes with a reading.

        Raises
        ------
        StreamError
            Where something is missing that the model was trained with, or cannot be used.
        """
        horizon = self._contract.horizon
        now = self._values(covariates, self._names, (), called="covariates")
        ahead = self._values(future, self._known, (horizon,), called="future")
        return Beside(now, ahead, self._calendar(told))

    def read_together(
        self,
        covariates: Sequence[Values | None],
        future: Sequence[Values | None],
        told: Sequence[Told | None],
    ) -> Beside | None:
        """Read what goes with many readings, where all of it is plain numbers in one form.

        Returns
        -------
        Beside or None
            As `read` gives it for each. None where they must be read one by one: to say what is
            wrong with one, or because their forms differ.
        """
        now = _together(covariates, self._names, ())
        ahead = _together(future, self._known, (self._contract.horizon,))
        if now is None or ahead is None:
            return None
        try:
            return Beside(now, ahead, np.array([self._calendar(one) for one in told]))
        except StreamError:  # of which reading, is said one by one
            return None

    def missing(self, told: Told) -> Beside:
        """Return what is known of a stamp that was left out: the calendar, and nothing else."""
        ahead = (self._contract.horizon, len(self._known))
        calendar = self._calendar(told)
        return Beside(np.full(len(self._names), np.nan), np.full(ahead, np.nan), calendar)

    def lay(self, beside: Beside, now: Array, ahead: Array) -> None:
        """Put what goes with readings into `now` `(..., columns)`, what comes then into `ahead`."""
        now[..., : len(self._names)] = beside.now
        now[..., self._cyclic] = beside.cyclic[..., 0, :]
        ahead[..., : len(self._known)] = beside.ahead
        ahead[..., len(self._known) :] = beside.cyclic[..., 1:, :]

    def lay_static(self, static: Array, now: Array) -> None:
        """Put static columns, `(..., static columns)`, into `(..., columns)`."""
        now[..., self._static] = static

    def read_history(
        self,
        history: History,
        covariates: Values | None,
        future: Values | None,
    ) -> tuple[Array, Beside]:
        """Read what goes with many readings.

        Parameters
        ----------
        history : History
            Where the readings lie in time.
        covariates, future
            At their times, `(readings, ...)`, and after the last of them.

        Returns
        -------
        tuple of ndarray of float32 and Beside
            Columns `(rows, columns)`, static ones left open; and what goes with the last.

        Raises
        ------
        StreamError
            As `read`.
        """
        rows, wall = history.rows, history.wall
        values = self._values(covariates, self._names, history.places.shape, called="covariates")
        ahead = self._values(future, self._known, (self._contract.horizon,), called="future")
        last = None
        if wall is not None:
            last = Told(wall[rows - 1 :] if len(wall) > rows else wall[-1], (history.last,))
        beside = Beside(values[-1], ahead, self._calendar(last))
        columns = np.full((rows, len(self._contract.columns)), np.nan, np.float32)
        columns[history.places, : len(self._names)] = values
        if self._fields and wall is not None:
            columns[:, self._cyclic] = calendar_columns(wall[:rows], self._fields)
        return columns, beside

    def _check_static(self, static: Mapping[str, Any], names: set[str]) -> None:
        if names - static.keys():
            raise StreamError(
                f"The model knows each stream by {', '.join(sorted(names))}; give "
                f"`static` with {', '.join(sorted(names - static.keys()))}."
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
        keys = set(getattr(given, "keys", tuple)())
        if not isinstance(given, Mapping) and not keys & set(names):
            return _numbers(given, shape, called=called, wanted=wanted)
        if set(names) - keys:
            lacking = ", ".join(sorted(set(names) - keys))
            raise StreamError(f"`{called}` lacks {lacking}: give {wanted}.")
        by_name: Any = given
        columns = [_numbers(by_name[name], rows, called=f"{called}[{name!r}]") for name in names]
        return np.stack(columns, -1)

    def _calendar(self, told: Told | None) -> NDArray[np.float64]:
        """Return the fields of the calendar now and at the next times, `(1 + horizon, fields)`."""
        if not self._fields:
            return np.empty((self._contract.horizon + 1, 0))
        if told is None:
            raise StreamError("`time` of the reading is missing: the model goes by the calendar.")
        stamp = told.wall.dtype, told.wall.shape, told.wall.tobytes(), told.moments
        known, columns = self._latest
        if known != stamp:
            columns = calendar_columns(self._times(told), self._fields)
            self._latest = stamp, columns
        return columns

    def _times(self, told: Told) -> NDArray[np.datetime64]:
        """Return the times of a reading and of the next ones, `(1 + horizon,)`."""
        horizon, seconds = self._contract.horizon, self._contract.seconds
        times = told.wall
        if not times.ndim:
            if seconds is not None:
                return self._steps.next_times(told, horizon)
            raise StreamError(
                f"A step of {self._contract.step} has no fixed length: give as `time` those of the "
                f"reading and of the {horizon} next ones."
            )
        if times.shape != (horizon + 1,):
            raise StreamError(f"`time` is one time or {horizon + 1}, got {times.shape}.")
        return times


def _numbers(
    given: ArrayLike, shape: tuple[int, ...], *, called: str, wanted: str = "a number"
) -> NDArray[np.float64]:
    try:
        if isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(np.float64), np.nan)
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(f"`{called}` must be numbers, got {given!r}: give {wanted}.") from err
    # A single column may come without an axis of its own.
    if values.shape != shape and values.shape != tuple(n for n in shape if n > 1):
        raise StreamError(f"`{called}` has shape {values.shape}, expected {shape}: give {wanted}.")
    beyond = np.abs(values) > LARGEST
    if beyond.any():
        raise StreamError(f"`{called}` holds {values[beyond].flat[0]}, beyond float32; give NaN.")
    return values.reshape(shape)


def _together(
    given: Sequence[Values | None], names: list[str], rows: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """Return values `(given, *rows, names)`, or None where they are not all of one plain form."""
    shape, kinds = (len(given), *rows, len(names)), set(map(type, given))
    if not names:
        return np.empty(shape) if kinds <= {type(None)} else None
    each: Any = given
    try:
        if kinds == {dict}:
            each = [[one[name] for name in names] for one in each]
        if kinds <= {dict, list, tuple}:
            inner = {type(value) for one in each for value in one}
            if any(issubclass(kind, np.ma.MaskedArray) for kind in inner):
                return None  # numpy would forget the masks
        elif kinds != {np.ndarray}:
            return None
        values = np.array(each, np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if kinds == {dict}:
        values = np.moveaxis(values, 1, -1)
    is_plain = values.shape == shape and not (np.abs(values) > LARGEST).any()
    return values if is_plain else None
