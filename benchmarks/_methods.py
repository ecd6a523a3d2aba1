"""One face for every detector: what it says of each reading, at a budget of alarms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from _lstm import lstm
from _rivals import Array, frozen_z, isolation_forest, moving_z, online_ar, pca, smoothed
from numpy.typing import NDArray

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.anomaly import calibrate_scores
from xlstm_ts.anomaly.events import Event

COOLDOWN = 150  # readings
SPAN = 10  # of the running mean in which ranges show


class Scored(NamedTuple):
    """What a detector says of readings `(T, C)`.

    `point` and `stretch` are its scores of each reading and of ranges, high is abnormal; `blame`
    is what each channel has to do with it, None where the detector cannot tell; `alarms` are the
    readings in alarm at its budget, `events` what comes of them, in order.
    """

    point: Array
    stretch: Array
    blame: Array | None
    alarms: NDArray[np.bool_]
    events: list[Event]


Method: TypeAlias = Callable[..., Scored]
"""Takes readings `(T, C)`, `known`, the readings for training, and `alpha`, the share of alarms."""


def rival(surprise: Callable[..., Array]) -> Method:
    """Return a rival; behind its scores are the calibration and the events of the detector."""

    def method(readings: Array, *, known: int, alpha: float) -> Scored:
        found = surprise(readings, known=known)
        total, stretch = np.sqrt(np.mean(found**2, axis=1)), smoothed(found, span=SPAN)
        calibrated = calibrate_scores(total, n_train=known, alpha=alpha, evidence=found)
        return Scored(
            point=calibrated.scores,
            stretch=stretch,
            blame=found if found.shape[1] == readings.shape[1] else None,
            # The usual threshold: a quantile of training.
            alarms=stretch > np.quantile(stretch[:known], 1 - alpha),
            events=calibrated.events,
        )

    return method


def detector(**settings: Any) -> Method:
    """Return the detector, as it is by default but for some settings."""

    def method(readings: Array, *, known: int, alpha: float) -> Scored:
        fitted = XLSTMAnomalyDetector(alpha=alpha, device="cpu", random_state=0, **settings)
        trace = fitted.fit(readings[:known]).trace(readings)
        return Scored(
            point=trace.scores,
            stretch=trace.range_scores,
            blame=np.nan_to_num(np.abs(trace.z)),
            alarms=trace.alarms,
            events=trace.events,
        )

    return method


RIVALS: dict[str, Method] = {
    "frozen z": rival(frozen_z),
    "moving z": rival(moving_z),
    "online AR(12)": rival(online_ar),
    "isolation forest": rival(isolation_forest),
    "PCA": rival(pca),
    "LSTM": rival(lstm),
}
CHAINS: dict[str, Method] = {"online AR in its place": detector(use_model=False)}
DETECTORS: dict[str, Method] = {"xLSTM": detector()}


def cooled(score: Array) -> Array:
    """Return scores of which only those count that exceed all of the readings before."""
    before = pd.Series(score).shift().rolling(COOLDOWN, min_periods=1).max().fillna(-np.inf)
    return np.where(score > before, score, 0.0)
