"""What it costs to judge a reading: by a stream of the detector, by a pool, and by a batch.

Beside the first two stand forecasts by the same graph, one at a time and in a pool.
"""

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
from xlstm_ts.streaming import StreamPool
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import NOTHING_AHEAD, DetectorModel
from xlstm_ts.streaming.scores import ScoreModel

ROUNDS, STEPS = 40, 50
TRAIN = 1000  # readings
RATIO = "verdict / forecast"
POOL_RATIO = "verdict / forecast in a pool"
BATCH = 1000  # streams that tick together, and keys of a pool
WARM = 110  # readings of a pool, after which its keys are judged
PANEL, PANEL_LENGTH = 50, 500  # series that `anomaly_score` is given at once, and their readings


def cost_figures(*, quick: bool) -> dict[str, float]:
    """Return microseconds of verdicts and forecasts, and their ratios."""
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

    rounds, rng = range(ROUNDS // 4 if quick else ROUNDS), np.random.default_rng(0)
    taken = np.array([
        [_seconds(step, values[i * STEPS : (i + 1) * STEPS]) for i in rounds]
        for step in (judged.step, alone)
    ])  # fmt: skip
    verdict, step = np.median(taken, axis=1) * 1e6
    many = [_seconds(batch.step, np.repeat(values[i : i + 1, None], BATCH, 1)) for i in rounds]
    score = float(np.median(many)) / BATCH * 1e6
    pool, forecasts = DetectorPool(loaded), StreamPool(loaded.model)
    together = np.array([
        _pool_seconds(pool, forecasts, value, noise=rng.standard_normal(BATCH))
        for value in values[: WARM + len(rounds)]
    ])  # fmt: skip
    of_pool, forecast_of_pool = np.median(together[WARM:], axis=0) / BATCH * 1e6
    panel = values[:PANEL_LENGTH] + 0.01 * rng.standard_normal((PANEL, PANEL_LENGTH, 1))
    of_panel, of_series = (
        _seconds(detector.anomaly_score, given[None]) / given.size * 1e6
        for given in (panel, panel[0])
    )
    return {
        "verdict µs": float(verdict),
        "forecast µs": float(step),
        RATIO: float(verdict / step),
        f"score in a batch of {BATCH:,} µs": score,
        "verdict / score in a batch": float(verdict / score),
        f"verdict in a pool of {BATCH:,} µs": float(of_pool),
        "forecast in a pool µs": float(forecast_of_pool),
        POOL_RATIO: float(of_pool / forecast_of_pool),
        "verdict / verdict in a pool": float(verdict / of_pool),
        f"anomaly_score of {PANEL} series µs a reading": of_panel,
        "of one / of one among these": of_series / of_panel,
    }


def _pool_seconds(
    pool: DetectorPool, forecasts: StreamPool, value: Array, *, noise: Array
) -> tuple[float, float]:
    """Return the processor's time of a reading of each key: to judge them, and to forecast them."""
    readings = {key: value + 0.01 * one for key, one in enumerate(noise)}
    return tuple(
        _seconds(lambda _, step=step: step(readings), value[None])
        for step in (pool.step, lambda given: forecasts.step(given, covariates=given))
    )


def _seconds(step: Callable[[Array], object], values: Array) -> float:
    """Return the processor's time of a step, over some."""
    start = time.process_time()
    for value in values:
        step(value)
    return (time.process_time() - start) / len(values)
