"""Fields of a line: numbers, names of streams and times."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from xlstm_ts.cli.dates import read_date
from xlstm_ts.cli.unix import unix_unit
from xlstm_ts.exceptions import StreamError
from xlstm_ts.streaming.readings import LARGEST
from xlstm_ts.streaming.times import Time

Key = str | int
# What pandas, and so `fit`, takes as missing in a CSV.
MISSING = {
    "", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>",
    "n/a", "na", "nan", "none", "null",
}  # fmt: skip


def read_number(value: Any) -> float | None:
    """Return a number that came as one or as text, NaN where missing; None of anything else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if abs(number) > LARGEST else number


def read_key(name: str, value: Any) -> Key:
    """Return the name of a stream.

    Raises
    ------
    StreamError
        Where it is no text and no integer.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise StreamError(f"The key {name} must be a text or an integer, got {short(value)}.")
    return value


def read_time(value: Any, *, form: str | None) -> Time | list[Time]:
    """Return a time that came as text or as unix time, or a list of them.

    Raises
    ------
    StreamError
        Where it is none.
    """
    if isinstance(value, list):
        return [time for one in value if not isinstance(time := read_time(one, form=form), list)]
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text) if form is None else text
        except ValueError:
            value = text
        if isinstance(value, str):
            return read_date(value, form=form)
    unit = unix_unit(value, value) if isinstance(value, int | float) else None
    if unit is None:
        raise StreamError(
            f"The time must be such as 2026-01-31T12:00 or unix time, got {short(value)}."
        )
    nanoseconds = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit[0]]
    return np.datetime64(round(value * nanoseconds), "ns")


def short(value: Any) -> str:
    """Return a value as JSON that fits in a sentence."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
