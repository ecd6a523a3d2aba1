"""How many alarms an operator will bear, as a share of readings."""

from __future__ import annotations

from typing import Literal

from xlstm_ts.checks import check_real

USUAL = 1e-4
A_DAY = 86400.0  # seconds
MOST = 0.5
# One alarm a day of hourly readings would be one in 24.
LAXEST_BY_ITSELF = 1e-2

Contamination = float | Literal["auto"]


def find_alpha(
    *,
    alarms_per_day: float | None = None,
    alpha: float | None = None,
    contamination: Contamination | None = None,
    seconds: float | None = None,
) -> float:
    """Return the share of readings that may be in alarm.

    Parameters
    ----------
    alarms_per_day, alpha, contamination
        The budget, as `XLSTMAnomalyDetector` has it; one of them.
    seconds : float or None
        Length of the step; None where readings are counted.

    Raises
    ------
    ValueError
        Where none or more than one is given, it is out of range, or alarms are to be counted by the
        day and readings have no times.
    """
    given = {"alarms_per_day": alarms_per_day, "alpha": alpha, "contamination": contamination}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        got = ", ".join(f"`{name}`" for name in named) or "none"
        raise ValueError(
            f"Give one budget, `alarms_per_day`, `alpha` or `contamination`; got {got}."
        )
    ((name, value),) = named.items()
    if name == "contamination" and value == "auto":
        a_day = 0.0 if seconds is None else seconds / A_DAY
        return max(USUAL, min(a_day, LAXEST_BY_ITSELF))
    if name == "contamination" and isinstance(value, str):
        raise ValueError(f"`contamination` must be 'auto' or a share of readings, got {value!r}.")
    share = check_real(name, value)
    if name == "alarms_per_day":
        if seconds is None:
            raise ValueError(
                "`alarms_per_day` needs readings with times and a step of fixed length: give `X` "
                "an index of times, or `alpha`, the share of readings in alarm."
            )
        share *= seconds / A_DAY
    if name == "alarms_per_day" and not 0 < share <= MOST:
        most = MOST * A_DAY / seconds if seconds else 0
        raise ValueError(
            f"`alarms_per_day` must be above 0 and, at this step, at most {most:g}, got {value}."
        )
    if not 0 < share <= MOST:
        raise ValueError(f"`{name}` must be a share of readings in (0, {MOST}], got {value}.")
    return share
