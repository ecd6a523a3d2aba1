"""What the chain says: of one reading, and of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.events import Event
from xlstm_ts.anomaly.stages import Floats, Mask

NUMBERS = 7  # fields of a verdict that are scores, the first ones


class Verdict(NamedTuple):
    """What the chain says of one reading.

    Attributes
    ----------
    score : float
        Calibrated -log10 p of the reading, high is abnormal; 0 where there is no evidence.
    point_score, range_score, level_score, recent_score, relation_score : float
        What it is the largest of: -log10 p of the reading against its forecast, of the stretch of
        such errors, of the reading against those of training, against the last ones, and against
        the other channels.
    slow_score : float
        How far the running level is from that of training; from 1 on it raises an alarm.
    alarm : bool
        Whether the reading is in alarm, by the score, the slow channel or a stuck sensor.
    event : Event or None
        The event that is open, or that has closed at this reading.
    contributions : ndarray of float64, shape (C,)
        Share of each channel in the largest of these; they sum to 1, or are 0 where nothing is
        scored.
    status : {"warm-up", "ok", "alarm", "missing", "stuck"}
        In a word.
    """

    score: float
    point_score: float
    range_score: float
    level_score: float
    recent_score: float
    relation_score: float
    slow_score: float
    alarm: bool
    event: Event | None
    contributions: Floats
    status: str


class Trace(NamedTuple):
    """What the chain says of many readings.

    Attributes
    ----------
    scores, point_scores, range_scores, level_scores, recent_scores, relation_scores, slow_scores
        As of `Verdict`, ndarrays of float64, shape (T,).
    alarms : ndarray of bool, shape (T,)
        Readings in alarm.
    contributions, z, expected, scale : ndarray of float64, shape (T, C)
        Shares of the channels, errors of the forecast in running units (NaN where there is no
        evidence), what was expected, and the scale of errors, both in raw units.
    statuses : list of str, length T
        As of `Verdict`.
    events : list of Event
        In order of time, each as it was last known.
    """

    scores: Floats
    point_scores: Floats
    range_scores: Floats
    level_scores: Floats
    recent_scores: Floats
    relation_scores: Floats
    slow_scores: Floats
    alarms: Mask
    contributions: Floats
    z: Floats
    expected: Floats
    scale: Floats
    statuses: list[str]
    events: list[Event]


def trace(verdicts: Sequence[Verdict], z: Floats, expected: Floats, scale: Floats) -> Trace:
    """Lay out by columns what was said of many readings; the others are as in `Trace`."""
    events = {one.event.number: one.event for one in verdicts if one.event is not None}
    numbers = np.array([verdict[:NUMBERS] for verdict in verdicts]).T
    joint, point, stretch, level, recent, relation, slow = numbers
    return Trace(
        scores=joint,
        point_scores=point,
        range_scores=stretch,
        level_scores=level,
        recent_scores=recent,
        relation_scores=relation,
        slow_scores=slow,
        alarms=np.array([verdict.alarm for verdict in verdicts]),
        contributions=np.array([verdict.contributions for verdict in verdicts]),
        z=z,
        expected=expected,
        scale=scale,
        statuses=[verdict.status for verdict in verdicts],
        events=[*events.values()],
    )
