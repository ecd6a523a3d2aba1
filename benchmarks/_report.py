"""How every benchmark reports: one line a figure, `name: value (bar)`, and a check of the bars."""

from __future__ import annotations

import sys


class Report:
    """Prints figures as they come and remembers which bars were missed."""

    def __init__(self) -> None:
        self._missed: list[str] = []

    def add(
        self, name: str, value: float, *, most: float | None = None, least: float | None = None
    ) -> None:
        """Print one figure; `most` or `least` is its bar."""
        bar = ""
        if most is not None:
            bar = f" (bar: at most {most:g})"
        elif least is not None:
            bar = f" (bar: at least {least:g})"
        print(f"{name}: {value:.4g}{bar}", flush=True)
        met = (most is None or value <= most) and (least is None or value >= least)
        if not met:
            self._missed.append(name)

    def note(self, text: str) -> None:
        """Print a line that is not a figure, such as a peer that is not installed."""
        print(f"# {text}", flush=True)

    def finish(self, *, check: bool) -> int:
        """Return the exit code: 1 where `check` is set and a bar was missed, each named."""
        if not (check and self._missed):
            return 0
        print(f"missed: {', '.join(self._missed)}", file=sys.stderr)
        return 1
