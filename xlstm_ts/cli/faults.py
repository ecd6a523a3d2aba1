"""Values that cannot be used: they count as missing readings, and are told."""

from __future__ import annotations

from collections.abc import Callable

from xlstm_ts.streaming.keys import Key
from xlstm_ts.streaming.serving import Reading

REPORTED = 20  # of what cannot be used, shown at most


class Faults:
    """Counts values that cannot be used, and tells the first of each stream and field.

    Parameters
    ----------
    say : callable
        Called with a sentence.

    Attributes
    ----------
    count : int
        How many there were.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self.count = say, 0
        self._told: set[tuple[Key | None, str]] = set()

    def note(self, reading: Reading, *, where: str) -> None:
        """Note what a reading has of them; `where` says which one it is."""
        self.count += len(reading.faults)
        for name, fault in reading.faults.items():
            if len(self._told) < REPORTED and (reading.key, name) not in self._told:
                self._told.add((reading.key, name))
                self._say(f"{where}: {fault}")
