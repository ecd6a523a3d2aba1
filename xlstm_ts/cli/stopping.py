"""Signals: a stream that is asked to stop ends what it is at, writes it, and goes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130  # the exit code after Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once within the block, where there is nothing to keep yet.

    For imports: one that is interrupted shows where it was, or fails as if a package were missing.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class StopAsked(Exception):  # noqa: N818 - no error: this is how waiting ends
    """Raised where a stream waits, once it is asked to stop."""


class Stop:
    """Within the block, Ctrl-C and SIGTERM are noted and wake up what waits; a second one kills.

    Attributes
    ----------
    signal : int or None
        The signal that came.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._is_waiting = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, otherwise 0."""
        return INTERRUPTED if self.signal == signal.SIGINT else 0

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal raise `StopAsked` within the block."""
        self._is_waiting = True
        try:
            if self.signal is not None:
                raise StopAsked
            yield
        finally:
            self._is_waiting = False

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._restore()
        if self._is_waiting:
            raise StopAsked

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
