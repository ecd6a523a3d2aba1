"""The step of an index: found, compared with another, and completed where stamps are missing."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from xlstm_ts import advice
from xlstm_ts.checks import is_far
from xlstm_ts.exceptions import SeriesError

TIMES = (pd.DatetimeIndex, pd.PeriodIndex)
# Of an hour that summer time leaves out or has twice; pandas 2 raises what pytz has for it.
NO_SUCH_TIME: tuple[type[Exception], ...] = (ValueError,)
with suppress(ImportError):
    NO_SUCH_TIME += (import_module("pytz").exceptions.InvalidTimeError,)


def complete_index(
    index: pd.Index[Any], *, name: str, known: pd.Index[Any] | None = None
) -> pd.Index[Any]:
    """Return the index from its first to its last entry with one step and nothing left out.

    Parameters
    ----------
    index : pandas.Index
        Times, periods or integers, increasing.
    name : str
        What the series is called in an error.
    known : pandas.Index, optional
        An index of the step that this one is to have. Where readings are only counted, in one or
        the other, there is nothing to compare; of times that fit two steps (five working days in a
        row are five days) the known one is taken.

    Returns
    -------
    pandas.Index
        As long as `index`, or longer where entries are missing.

    Raises
    ------
    SeriesError
        Where the index is of another kind, has no time, has one twice, goes back, lies on no grid,
        or has another step than the known one.
    """
    if not isinstance(index, TIMES) and not pd.api.types.is_integer_dtype(index.dtype):
        raise SeriesError(
            f"`{name}` has an index of {index.dtype}, not of times or integers; "
            f"{advice.for_kind_of_index(index)}."
        )
    _check_increasing(index, name=name)
    if isinstance(index, pd.PeriodIndex):
        full: pd.Index[Any] = _periods(index, name=name)
    elif isinstance(index, pd.DatetimeIndex):
        full = _stamps(index, name=name, known=getattr(known, "freq", None))
    else:
        return _integers(index, name=name)
    return full if known is None else _at_step_of(full, known, name=name)


def future_index(index: pd.Index[Any], horizon: int) -> pd.Index[Any]:
    """Return the `horizon` entries that follow on an index of one step.

    Raises
    ------
    SeriesError
        Where one of them is an hour that summer time leaves out or has twice.
    """
    last, name = index[-1], index.name
    if isinstance(index, pd.DatetimeIndex):
        try:
            return pd.date_range(last, periods=horizon + 1, freq=index.freq, name=name)[1:]
        except NO_SUCH_TIME as err:
            raise SeriesError(
                f"The times after {last} meet an hour that summer time leaves out or has twice "
                f"({err}); use y.tz_convert('UTC')."
            ) from err
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(last + 1, periods=horizon, freq=index.freq, name=name)
    step = index.step  # type: ignore[attr-defined]
    return pd.RangeIndex(last + step, last + step * (horizon + 1), step, name=name)


def fixed_step(freq: Any) -> pd.Timedelta | None:
    """Return the length of a step; None of months, years and working days, which differ."""
    if isinstance(freq, pd.offsets.Week):
        return pd.Timedelta(weeks=freq.n)
    if isinstance(freq, pd.offsets.Day):
        return pd.Timedelta(days=freq.n)  # pandas 3.0 converts neither
    try:
        return pd.Timedelta(freq)
    except ValueError:
        return None


def step_seconds(index: pd.Index[Any]) -> float | None:
    """Return the length of the step of an index; None where it has none, or no fixed one."""
    freq = getattr(index, "freq", None)
    step = None if freq is None else fixed_step(freq)
    return None if step is None else step.total_seconds()


def follows_on(index: pd.Index[Any], before: pd.Index[Any]) -> bool:
    """Return whether times begin one step after those of another index; counts never do."""
    return isinstance(index, TIMES) and index[0] == future_index(before, 1)[0]


def gap_between(before: pd.Index[Any], after: pd.Index[Any], *, name: str) -> int:
    """Return the entries that are missing between two indexes of one step; counts just go on.

    Raises
    ------
    SeriesError
        Where times of the second are not after those of the first.
    """
    if not isinstance(before, TIMES) or not isinstance(after, TIMES):
        return 0
    _check_same_kind(before, after, name=name)
    start: Any = before[-1]
    end: Any = after[0]
    if end <= start:
        raise SeriesError(
            f"`{name}` begins at {end}, but readings are known up to {start}; give only those that "
            "came after."
        )
    if isinstance(before, pd.DatetimeIndex):
        steps = (end - start) / max((before[1:] - before[:-1]).min(), pd.Timedelta(1))
        _check_not_far(steps, after, row=0, name=name)
    if isinstance(before, pd.PeriodIndex):
        return len(pd.period_range(start, end, freq=before.freq)) - 2
    step: Any = before.freq
    between = pd.date_range(start, end, freq=step)
    if between[-1] != after[0]:
        raise SeriesError(
            f"`{name}` begins at {after[0]}, which is no whole number of steps after "
            f"{before[-1]}; shift it, or fit again."
        )
    return len(between) - 2


def _check_same_kind(before: Any, after: Any, *, name: str) -> None:
    if type(before) is not type(after):
        raise SeriesError(
            f"`{name}` has {after.dtype}, what is known has {before.dtype}; convert it by "
            "y.to_timestamp() or y.to_period()."
        )
    zones = [str(getattr(index, "tz", None)) for index in (before, after)]
    if zones[0] != zones[1]:
        raise SeriesError(
            f"`{name}` has the time zone {zones[1]}, what is known has {zones[0]}; convert it by "
            "y.tz_convert(...), or y.tz_localize(...) where it has none."
        )


def joined_index(before: pd.Index[Any], after: pd.Index[Any]) -> pd.Index[Any]:
    """Return one index of two that follow on one another."""
    first, length = before[0], len(before) + len(after)
    if isinstance(before, pd.DatetimeIndex):
        return pd.date_range(
            first, periods=length, freq=before.freq, name=before.name, unit=before.unit
        )
    return before.append(after)


def _check_increasing(index: pd.Index[Any], *, name: str) -> None:
    if index.hasnans:
        row = int(index.isna().argmax())
        raise SeriesError(f"`{name}` has no time at position {row}; drop the row or give its time.")
    if index.has_duplicates:
        row = int(index.duplicated().argmax())
        raise SeriesError(
            f"`{name}` has the time {index[row]} more than once, again at position {row}; "
            "keep one: y[~y.index.duplicated()], or y.drop_duplicates([...]) of a long frame."
        )
    if not index.is_monotonic_increasing:
        row = int((index[1:] < index[:-1]).argmax()) + 1
        raise SeriesError(
            f"`{name}` goes back in time at position {row} ({index[row - 1]}, then {index[row]}); "
            "sort it: y.sort_index(), or y.sort_values([...]) of a long frame."
        )


def _periods(index: pd.PeriodIndex, *, name: str) -> pd.PeriodIndex:
    steps = np.diff(index.asi8)
    row = int(steps.argmax()) + 1 if len(steps) else 0
    _check_not_far(int(steps.sum()), index, row=row, name=name)
    full = pd.period_range(index[0], index[-1], freq=index.freq, name=index.name)
    off = ~index.isin(full)
    if off.any():
        row = int(off.argmax())
        raise SeriesError(
            f"`{name}` has an irregular index: {index[row]} at position {row} is no whole number "
            f"of steps of {index.freqstr} after {index[0]}; give periods of one grid."
        )
    return full


def _check_not_far(slots: float, index: pd.Index[Any], *, row: int, name: str) -> None:
    if is_far(slots, length=len(index)):
        raise SeriesError(
            f"`{name}` has a gap of many times its length before position {row} ({index[row]}); "
            "correct the time, or use the readings after it."
        )


def _stamps(index: pd.DatetimeIndex, *, name: str, known: Any) -> pd.DatetimeIndex:
    if index.freq is not None:
        return index
    if len(index) == 1:
        if known is None:
            raise SeriesError(
                f"`{name}` has one reading, so its step is unknown; set y.index.freq."
            )
        return pd.date_range(index[0], periods=1, freq=known, name=index.name, unit=index.unit)
    if known is not None and len(index) == 2:  # two stamps tell no step of their own
        return _filled(index, name=name, step=known)
    freq: Any = "infer" if len(index) > 2 else index[1] - index[0]
    regular = pd.DatetimeIndex(index, freq=freq)
    if regular.freq is not None:
        return regular
    return _filled(index, name=name, step=known or _grid(index))


def _filled(index: pd.DatetimeIndex, *, name: str, step: Any) -> pd.DatetimeIndex:
    """Return the stamps and those missing between them, where all lie on the grid of a step."""
    steps = index[1:] - index[:-1]
    usual = steps.value_counts().index[0]
    row = int(steps.argmax()) + 1
    _check_not_far((index[-1] - index[0]) / usual, index, row=row, name=name)
    full = pd.date_range(index[0], index[-1], freq=step, name=index.name, unit=index.unit)
    if step is not None and index.isin(full).all():
        return full
    row = int((steps != usual).argmax()) + 1
    raise SeriesError(
        f"`{name}` has an irregular index: {steps[row - 1]} before position {row} ({index[row]}), "
        f"most often {usual}; {advice.for_irregular_stamps(index)}."
    )


def _grid(index: pd.DatetimeIndex) -> str | None:
    """Return the step on whose grid all stamps lie, with some missing; None where there is none."""
    month = index[0].strftime("%b").upper()
    weekly = f"W-{index[0].day_name()[:3].upper()}"
    for step in (
        "B",
        "D",
        weekly,
        "MS",
        "ME",
        f"QS-{month}",
        f"QE-{month}",
        f"YS-{month}",
        f"YE-{month}",
    ):
        try:
            grid = pd.date_range(index[0], index[-1], freq=step)
        except NO_SUCH_TIME:
            continue
        if len(grid) <= 2 * len(index) and index.isin(grid).all():
            return step
    # A step that divides the others yet is rare is the resolution of a clock that jitters.
    steps = index[1:] - index[:-1]
    smallest = steps.min()
    if (steps % smallest != pd.Timedelta(0)).any():
        return None
    slots = (index[-1] - index[0]) / smallest + 1
    most = (steps == smallest).mean() > 0.5
    return str(to_offset(smallest).freqstr) if most or slots <= 2 * len(index) else None


def _integers(index: pd.Index[Any], *, name: str) -> pd.RangeIndex:
    if len(index) == 1:
        return pd.RangeIndex(index[0], index[0] + 1, name=index.name)
    steps = pd.Series(index[1:] - index[:-1])
    step = int(steps.mode()[0])
    if (steps % step).any() or is_far(steps.sum() / step, length=len(index)):
        row = int((steps != step).to_numpy().argmax()) + 1
        raise SeriesError(
            f"`{name}` has an irregular index: {index[row]} at position {row}, expected "
            f"{index[row - 1] + step}; bring it to one step, with NaN in the gaps, by "
            "y.reindex(...), or count the readings: y.reset_index(drop=True)."
        )
    return pd.RangeIndex(int(index[0]), int(index[-1]) + step, step, name=index.name)


def _at_step_of(index: Any, known: pd.Index[Any], *, name: str) -> pd.Index[Any]:
    if not isinstance(known, TIMES) or _step_kind(index.freq) == _step_kind(known.freq):
        return index
    if isinstance(index, pd.DatetimeIndex) and len(index) > 1:
        step: Any = known.freq
        # pandas 3.0 refuses a step where there is another, though the times may fit both.
        bare = pd.DatetimeIndex(index, freq=None)  # type: ignore[arg-type]
        with suppress(ValueError):  # the times do not fit this step
            return pd.DatetimeIndex(bare, freq=step)
    step = known.freqstr
    raise SeriesError(
        f"`{name}` has a step of {index.freqstr}, the model was trained on one of {step}; "
        f"bring it to that: y.resample({step!r}).mean()."
    )


def _step_kind(freq: Any) -> object:
    """Return what indexes of one step share: month starts and month ends are months alike."""
    fixed = fixed_step(freq)
    return (freq.n, freq.rule_code.split("-")[0].rstrip("SE")) if fixed is None else fixed
