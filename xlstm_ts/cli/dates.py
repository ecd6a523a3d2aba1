"""Dates as text: those that `fit` reads, without pandas, one at a time."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from xlstm_ts.exceptions import StreamError

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
CLOCK = (
    r"(?:[T ,]+(?P<hour>\d{1,2})(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)"
    r"(?:[.,](?P<fraction>\d+))?)?)? ?(?P<half>[AP]M)?)?"
    r" ?(?P<zone>Z|UTC|[+-]\d\d(?::?\d\d)?)?"
)
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
DATES = [
    re.compile(WEEKDAY + date + CLOCK, re.ASCII | re.IGNORECASE)
    for date in (
        r"(?P<year>\d{4})(?P<mark>[-/.]?)(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})",
        r"(?P<day>\d{1,2})[- ](?P<month>[a-z]{3,9})\.?[-, ]+(?P<year>\d{4})",
        r"(?P<month>[a-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})",
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})(?P<day>)",
    )
]
# Two numbers, of which one is the day, and a year.
UNCLEAR = re.compile(r"^\s*(\d{1,2})([-/.])(\d{1,2})\2(?:\d{4}|\d\d)(?!\d)", re.ASCII)


def read_date(text: str, *, form: str | None = None) -> datetime:
    """Return the time that a text shows.

    Parameters
    ----------
    text : str
        Year, month and day in this order (the day may be absent), or with the name of the month; a
        time of the day and an offset may follow.
    form : str, optional
        How it is written, as `datetime.strptime` has it, in place of that.

    Raises
    ------
    StreamError
        Where it is no such text; of 01/02/2024 nobody knows the month.
    """
    try:
        if form is not None:
            return datetime.strptime(text, form)
        with suppress(ValueError):  # the usual form, and faster
            return datetime.fromisoformat(text)
        for date in DATES:
            if found := date.fullmatch(text):
                return _built(found.groupdict())
    except ValueError as err:
        raise StreamError(f"The time {text!r} cannot be read: {err}.") from err
    if UNCLEAR.match(text):
        raise StreamError(
            f"The time {text!r} begins with its day or with its month: say which, such as by "
            "--time-format '%d/%m/%Y %H:%M'."
        )
    raise StreamError(
        f"The time {text!r} cannot be read: write it such as 2026-01-31T12:00 or as unix time, or "
        "give its --time-format."
    )


def _built(parts: dict[str, str | None]) -> datetime:
    year, day = int(parts["year"] or 0), int(parts["day"] or 1)
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    if half := parts["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"there is no hour {hour} {half}")
        hour = hour % 12 + 12 * (half.upper() == "PM")
    fraction = int((parts["fraction"] or "").ljust(6, "0")[:6])
    zone = _zone(parts["zone"])
    return datetime(year, _month(parts["month"] or ""), day, hour, minute, second, fraction, zone)


def _month(text: str) -> int:
    if text.isdecimal():
        return int(text)
    for number, name in enumerate(MONTHS, start=1):
        if name.startswith(text.lower()):
            return number
    raise ValueError(f"there is no month {text}")


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text[0] not in "+-":
        return timezone.utc
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
