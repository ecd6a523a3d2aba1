"""From readings in alarm to events: one cause, one event."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from xlstm_ts.anomaly.slow import HALFWAY
from xlstm_ts.anomaly.stages import Floats, Mask, Stage

Policy = Literal["auto", "hold"]
NONE, OPEN, DORMANT = 0, 1, 2
SPIKE = 3  # readings in alarm that are no more than a spike
WORSE = 1.0  # decades above the peak of an event that make another one of it
FAINT = 0.5  # of the channel that is blamed most: one with less has no part in an event
CHANCE = 0.5  # that calm readings in a row would not close an event
BY_ERROR, BY_LEVEL, BY_STILLNESS = 0, 1, 2


class Evidence(NamedTuple):
    """What one reading says, for the events.

    Attributes
    ----------
    score : float
        Calibrated -log10 p; NaN where there is none.
    level : float
        The largest of `slow`.
    is_still : bool
        Whether a channel is stuck.
    z, slow : ndarray of float64, shape (C,)
        How far each channel is off in the view that speaks, in running units, and levels in units
        of their limits. NaN is missing in `z`, as 0 is in `slow`.
    stuck : ndarray of bool, shape (C,)
        Channels that are stuck.
    """

    score: float
    level: float
    is_still: bool
    z: Floats
    slow: Floats
    stuck: Mask


class Event(NamedTuple):
    """A stretch of readings with one cause.

    Attributes
    ----------
    number : int
        Events count from 0.
    start, end : int
        First and last reading in alarm, counted from the first of the stream.
    peak : float
        The largest -log10 p, 0 where another rule than the score raised it.
    peak_at : int
        The reading of the peak.
    kind : {"spike", "deviation", "level_shift", "drift", "stuck"}
        What it looks like so far: up to three readings; more; a level that stays away after
        a jump, or that left without one; a value that does not change.
    shares : ndarray of float64, shape (C,)
        What each channel has to do with it; they sum to 1.
    is_open : bool
        Whether it goes on.
    """

    number: int
    start: int
    end: int
    peak: float
    peak_at: int
    kind: str
    shares: Floats
    is_open: bool


class EventMachine(Stage):
    """Opens an event at an alarm, and closes it after quiet readings.

    An alarm in the cool-down after it opens it again, unless it is a decade above its peak, or
    blames a channel that had no part in it: that is another cause. Of causes that take turns each
    is another one once, or two sensors that flap would begin an event at each turn.

    An event that is a level shift ends when the level is taken for the new normal: by itself
    (`policy="auto"`) or by `acknowledge`.

    Parameters
    ----------
    n_channels : int
        C, channels.
    quiet : int
        Readings without alarm that close an event, a decade below it and halfway to the limits of
        levels. The decade stops short of scores that every second such stretch has by chance.
    cooldown : int
        Readings out of it, all together, in which an alarm still belongs to it.
    n_rebase : int
        Readings of a level shift, from its start, after which its level is the new normal.
    policy : {"auto", "hold"}
        Whether that happens by itself.
    """

    STATE = (
        "row", "phase", "number", "start", "end", "peak", "peak_at", "calm", "alarms", "rest",
        "counts", "votes", "blamed",
    )  # fmt: skip

    def __init__(
        self, n_channels: int, *, quiet: int, cooldown: int, n_rebase: int, policy: Policy
    ) -> None:
        self.quiet, self.cooldown, self.n_rebase = quiet, cooldown, n_rebase
        self.policy = policy
        self.row, self.phase, self.number = 0, NONE, -1
        self.start, self.end, self.peak, self.peak_at = 0, 0, 0.0, 0
        self.calm, self.alarms, self.rest = 0, 0, cooldown
        self.counts = np.zeros(3, np.int64)  # readings in alarm by each cause
        self.votes = np.zeros((3, n_channels))
        # Channels with a part in the events before this one, each in the cool-down of the other.
        self.blamed = np.zeros(n_channels, np.bool_)

    @property
    def is_idle(self) -> bool:
        """Whether no event is open, nor is one cooling down: then a calm reading only counts."""
        return self.phase == NONE

    def step(self, evidence: Evidence, *, threshold: float) -> tuple[Event | None, bool]:
        """Take the evidence of one reading.

        Returns
        -------
        tuple of Event or None, and bool
            The event that is open or just closed, and whether a level is to be taken for normal.
        """
        row, self.row = self.row, self.row + 1
        if evidence.is_still:  # where a sensor is stuck says nothing of a level
            slow = np.where(evidence.stuck, 0.0, evidence.slow)
            evidence = evidence._replace(slow=slow, level=float(slow.max()))
        causes = self._causes(evidence, threshold)
        was_open = self.phase == OPEN
        if any(causes):
            self._alarm(row, evidence, causes)
        elif self.phase != NONE:
            near = evidence.score >= self._closing(threshold)  # false of NaN
            near |= evidence.level > HALFWAY
            self.calm = 0 if near and self.phase == OPEN else self.calm + 1
            self._wait()
        rebases = self.phase == OPEN and self.policy == "auto" and self._is_due
        if rebases:
            self.phase, self.calm = DORMANT, 0
        event = self.event if was_open or self.phase == OPEN else None
        return event, rebases

    @property
    def event(self) -> Event:
        """The last event, as it is known so far."""
        return Event(
            self.number, self.start, self.end, self.peak, self.peak_at, self._kind, self._shares,
            self.phase == OPEN,
        )  # fmt: skip

    def acknowledge(self) -> bool:
        """Close the open event; return whether there was one."""
        if self.phase != OPEN:
            return False
        self.phase, self.calm = DORMANT, 0
        return True

    @property
    def _is_due(self) -> bool:
        return self._cause == BY_LEVEL and self.row - self.start > self.n_rebase

    def _closing(self, threshold: float) -> float:
        by_chance = math.log10(self.quiet / CHANCE)
        return min(threshold, max(threshold - 1, by_chance))

    def _causes(self, evidence: Evidence, threshold: float) -> tuple[bool, bool, bool]:
        return evidence.score >= threshold, evidence.level >= 1, evidence.is_still

    def _alarm(self, row: int, evidence: Evidence, causes: tuple[bool, bool, bool]) -> None:
        if self.phase == NONE:
            self.blamed = np.zeros_like(self.blamed)
            self._begin(row)
        elif self.phase == DORMANT and self._is_another(evidence, causes):
            self.blamed = self.blamed | self._parts
            self._begin(row)
        self.phase, self.calm, self.end = OPEN, 0, row
        self.alarms += 1
        self.counts += causes
        if evidence.score > self.peak:
            self.peak, self.peak_at = evidence.score, row
        z, slow = np.nan_to_num(np.abs(evidence.z)), evidence.slow
        self.votes += np.stack((np.log1p(z), np.where(slow >= 1, slow, 0.0), evidence.stuck))

    def _is_another(self, evidence: Evidence, causes: tuple[bool, bool, bool]) -> bool:
        """Return whether an alarm in the cool-down of an event has a cause of its own.

        What comes after a level was taken for normal always has.
        """
        if evidence.score > self.peak + WORSE or self._is_due:
            return True
        blamed = (evidence.slow >= 1) | evidence.stuck
        if causes[BY_ERROR]:
            blamed[np.nan_to_num(np.abs(evidence.z)).argmax()] = True
        return bool((blamed & ~self.blamed & ~self._parts).any())

    @property
    def _parts(self) -> Mask:
        """Which channels have a part in the event, by any of its causes, `(C,)`."""
        votes = self.votes[self.counts > 0]
        parts: Mask = (votes >= FAINT * votes.max(1, keepdims=True)).any(0)
        return parts

    def _begin(self, row: int) -> None:
        self.number, self.start, self.peak, self.peak_at = self.number + 1, row, 0.0, row
        self.alarms, self.rest = 0, self.cooldown
        self.counts, self.votes = np.zeros_like(self.counts), np.zeros_like(self.votes)

    def _wait(self) -> None:
        """Let the event close, or the cool-down after it end."""
        is_held = self.policy == "hold" and self._is_due
        if self.phase == OPEN and self.calm >= self.quiet and not is_held:
            self.phase = DORMANT
        elif self.phase == DORMANT:
            # Spent once for all pauses of an event: otherwise rare alarms make one that never ends.
            self.rest -= 1
            self.phase = DORMANT if self.rest > 0 else NONE

    @property
    def _cause(self) -> int:
        """What tells the kind: stillness before the level, the level before errors.

        But a sensor that is stuck within a level shift does not make all of it a stuck sensor.
        """
        _, by_level, by_stillness = self.counts.tolist()
        if by_stillness and by_stillness >= by_level:
            return BY_STILLNESS
        return BY_LEVEL if 2 * by_level > self.alarms else BY_ERROR

    @property
    def _kind(self) -> str:
        if self._cause == BY_STILLNESS:
            return "stuck"
        if self._cause == BY_LEVEL:
            return "level_shift" if self.counts[BY_ERROR] else "drift"
        return "spike" if self.alarms <= SPIKE else "deviation"

    @property
    def _shares(self) -> Floats:
        votes = self.votes[self._cause]
        total = votes.sum()
        return votes / total if total > 0 else np.full(len(votes), 1 / len(votes))
