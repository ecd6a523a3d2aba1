"""From a raw score to calibrated scores, alarms and events: the last stages, for any score."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.events import Event, EventMachine, Evidence
from xlstm_ts.anomaly.feedback import RateFeedback
from xlstm_ts.anomaly.stages import Floats, Mask, Stage
from xlstm_ts.anomaly.tail import LARGEST_SHAPE, NEVER_LEARNT, Tail


class Calibrator(Stage):
    """Turns a raw score into -log10 p that keeps its rate; `largest_shape` as for `Tail`."""

    STATE = ("tail", "feedback")

    def __init__(self, *, largest_shape: float = LARGEST_SHAPE) -> None:
        self.tail, self.feedback = Tail(largest_shape=largest_shape), RateFeedback()

    def fit(self, scores: Floats) -> None:
        """Learn from raw scores `(T,)` of normal operation; NaN is missing."""
        self.tail.fit(scores)
        for score in scores[np.isfinite(scores)].tolist():
            surprise = self.tail.surprise(score)
            if surprise < NEVER_LEARNT:  # what the tail left out are anomalies of training
                self.feedback.update(self.feedback.correct(surprise))

    def step(self, score: float, *, learns: bool = True) -> float:
        """Return the calibrated score, and take the raw one in if it `learns`; NaN is missing."""
        if math.isnan(score):
            return math.nan
        if not learns:
            return self.feedback.correct(self.tail.surprise(score))
        corrected = self.feedback.correct(self.tail.step(score, learns_below=math.inf))
        self.feedback.update(corrected)
        return corrected


class Calibrated(NamedTuple):
    """What `calibrate_scores` gives.

    Attributes
    ----------
    scores : ndarray of float64, shape (T,)
        Calibrated -log10 p; 0 in the part that was learnt from and where the raw one is missing.
    alarms : ndarray of bool, shape (T,)
        Readings in alarm.
    events : list of Event
        In order of time.
    """

    scores: Floats
    alarms: Mask
    events: list[Event]


def calibrate_scores(
    scores: Floats,
    *,
    n_train: int,
    alpha: float = 1e-4,
    quiet: int = 20,
    cooldown: int = 150,
    evidence: Floats | None = None,
) -> Calibrated:
    """Run the tail, the rate feedback and the events over a raw score of any detector.

    Parameters
    ----------
    scores : ndarray of float64, shape (T,)
        Raw scores in the order of time, high is abnormal; NaN is missing.
    n_train : int
        Scores, from the first, that the tail is learnt from; they raise nothing.
    alpha : float, default=1e-4
        Share of readings in alarm.
    quiet, cooldown : int, default=20, 150
        As for `EventMachine`.
    evidence : ndarray of float64, shape (T, C), optional
        What each channel has to do with it, for the shares of events.

    Returns
    -------
    Calibrated
        Scores, alarms and events.
    """
    calibrator, threshold = Calibrator(), -math.log10(alpha)
    calibrator.fit(np.asarray(scores[:n_train], np.float64))
    channels = np.ones((len(scores), 1)) if evidence is None else evidence
    machine = EventMachine(
        channels.shape[1], quiet=quiet, cooldown=cooldown, n_rebase=1, policy="auto"
    )
    machine.row = n_train
    nothing = np.zeros(channels.shape[1])
    result, events = np.zeros(len(scores)), {}
    for row in range(n_train, len(scores)):
        score = calibrator.step(float(scores[row]))
        result[row] = 0.0 if math.isnan(score) else score
        found = Evidence(score, 0.0, False, channels[row], nothing, nothing > 0)
        event, _ = machine.step(found, threshold=threshold)
        if event is not None:
            events[event.number] = event
    return Calibrated(result, result >= threshold, [*events.values()])
