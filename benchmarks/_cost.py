"""What it costs to judge a reading: a stream of the detector, the forecast in it, and a batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _rivals import Array

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.streaming.detectors import NOTHING_AHEAD, DetectorModel
from xlstm_ts.streaming.scores import ScoreModel

ROUNDS, STEPS = 40, 50
TRAIN = 1000  # readings
RATIO = "verdict / forecast"
BATCH = 1000  # streams that tick together


def cost_figures(*, quick: bool) -> dict[str, float]:
    """Return microseconds of a verdict, of a forecast by the same graph, and of a score in a batch.

    Each with its ratio to what it is best held against.
    """
    readings = make_sensor_stream(TRAIN + ROUNDS * STEPS, random_state=0).clean.iloc[:, :1]
    detector = XLSTMAnomalyDetector(alpha=1e-3, device="cpu", random_state=0, max_steps=5)
    detector.fit(readings.iloc[:TRAIN])
    values = readings.to_numpy()[TRAIN:]
    with tempfile.TemporaryDirectory() as folder:
        path, scores = (Path(folder) / f"{name}.onnx" for name in ("detector", "scores"))
        export_detector(detector, path, scores=scores)
        loaded, batch = DetectorModel(path), ScoreModel(scores).create_batch(BATCH)
    judged, forecast = loaded.create_stream(), loaded.model.create_stream()

    def alone(value: Array) -> None:
        forecast.step_columns(value, value, NOTHING_AHEAD)

    rounds = range(ROUNDS // 4 if quick else ROUNDS)
    taken = np.array([
        [_seconds(step, values[i * STEPS : (i + 1) * STEPS]) for i in rounds]
        for step in (judged.step, alone)
    ])  # fmt: skip
    verdict, step = np.median(taken, axis=1) * 1e6
    many = [_seconds(batch.step, np.repeat(values[i : i + 1, None], BATCH, 1)) for i in rounds]
    score = float(np.median(many)) / BATCH * 1e6
    return {
        "verdict µs": float(verdict),
        "forecast µs": float(step),
        RATIO: float(verdict / step),
        f"score in a batch of {BATCH:,} µs": score,
        "verdict / score in a batch": float(verdict / score),
    }


def _seconds(step: Callable[[Array], object], values: Array) -> float:
    """Return the processor's time of a step, over some."""
    start = time.process_time()
    for value in values:
        step(value)
    return (time.process_time() - start) / len(values)
