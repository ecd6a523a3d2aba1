"""What a covariate is called and what is known of it: shared by estimator, graph and stream."""

from __future__ import annotations

from dataclasses import dataclass

# Fields of the calendar, and after how many counts they start again.
PERIODS = {"minute": 60, "hour": 24, "dayofweek": 7, "day": 31, "dayofyear": 366, "month": 12}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One covariate.

    Parameters
    ----------
    name : str
        Its name. A cyclic one is a field of the calendar, a key of `PERIODS` (see
        `calendars`).
    role : {"past", "known", "static", "cyclic"}
        Known up to now; known a horizon ahead too; the same for ever; a count that starts again.
    category : str or None
        Of a static category, the one that the column marks by 1, where others have 0.
    """

    name: str
    role: str
    category: str | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether it is known for the next readings."""
        return self.role in ("known", "cyclic")
