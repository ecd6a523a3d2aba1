"""Checks of parameters: a `ValueError` names the parameter, the value and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

MOST_TIMES_LONGER, ALWAYS_ALLOWED = 20, 10_000


def check_integer(name: str, value: object, *, least: int) -> None:
    """Refuse what is too small or no integer of Python or numpy; 4.0 and True are none."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be an integer, got {value!r}.")
    if int(value) < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")


def check_real(name: str, value: object) -> float:
    """Refuse what is no real number of Python or numpy; return it as a float."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a number, got {value!r}.")
    return float(value)


def check_number(name: str, value: object, *, least: float) -> None:
    """Refuse what is too small, NaN or no real number."""
    if not check_real(name, value) >= least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")


def check_positive(name: str, value: object) -> None:
    """Refuse what is not above 0, NaN or no real number."""
    if not check_real(name, value) > 0:
        raise ValueError(f"`{name}` must be above 0, got {value}.")


def check_fraction(name: str, value: object) -> None:
    """Refuse what is not in [0, 1)."""
    if not 0 <= check_real(name, value) < 1:
        raise ValueError(f"`{name}` must be in [0, 1), got {value}.")


def check_callable(name: str, value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise ValueError(f"`{name}` must be a callable or a sequence of them, got {value!r}.")


def is_far(stamps: float, *, length: int) -> bool:
    """Return whether readings lie so far apart that one of their times must be a mistake.

    It must not fill the memory with missing readings.
    """
    return stamps > MOST_TIMES_LONGER * length + ALWAYS_ALLOWED


def check_choice(name: str, value: object, *, among: Sequence[str]) -> None:
    """Refuse what is none of some words."""
    if value not in among:
        words = " or ".join(map(repr, among))
        raise ValueError(f"`{name}` must be {words}, got {value!r}.")
