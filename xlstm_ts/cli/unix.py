"""Unix time: which unit a number counts, told by its size."""

from __future__ import annotations

# From the seventies to 2033 in each unit; 202401312359 and its like lie outside of all.
UNIX = {
    "s": ("seconds", 1e8, 2e9),
    "ms": ("milliseconds", 3e11, 2e12),
    "us": ("microseconds", 3e14, 2e15),
    "ns": ("nanoseconds", 3e17, 2e18),
}


def unix_unit(least: float, most: float) -> tuple[str, str] | None:
    """Return the unit of times between these, short and in words; None where there is none."""
    for unit, (words, first, end) in UNIX.items():
        if first <= least <= most < end:
            return unit, words
    return None
