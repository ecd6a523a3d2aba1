"""False alarms of a detector whose host goes on learning, and of its graph of scores alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _rivals import Array

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.scores import ScoreModel

TRAINING, STREAMED = 4000, 20_000
DECADE = 3  # the budget: alpha is 1e-3
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]


def rate_figures(*, quick: bool) -> dict[str, float]:
    """Return alarms by the score as a multiple of the budget, over streams without a fault."""
    figures = {}
    for name, values in _streams(TRAINING + (STREAMED // 10 if quick else STREAMED)):
        detector = XLSTMAnomalyDetector(
            alpha=10.0**-DECADE, d_model=16, n_heads=2, context_length=64, max_steps=100,
            random_state=0, device="cpu",
        ).fit(values[:TRAINING])  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path, scores = (Path(folder) / f"{kind}.onnx" for kind in ("detector", "scores"))
            export_detector(detector, path, scores=scores)
            stream, alone = DetectorModel(path).create_stream(), ScoreModel(scores).create_batch(1)
        ways = {
            "host": lambda value, stream=stream: stream.step(value).score,
            "graph alone": lambda value, alone=alone: alone.step(value[None]).score[0],
        }
        for way, step in ways.items():
            score = np.array([step(value) for value in values[TRAINING:]])
            figures[f"{name}, {way}"] = float((score >= DECADE).mean() * 10**DECADE)
    return figures


def _streams(length: int) -> Iterator[tuple[str, Array]]:
    rng, hours = np.random.default_rng(0), np.arange(length)[:, None]
    yield "noise with memory", _remembered(rng.standard_normal((length, 2)), memory=0.9)
    waves = np.sin(hours * np.pi / 48 + np.arange(3))
    yield "season", waves + 0.2 * rng.standard_normal((length, 3))
    yield "heavy tails", _remembered(rng.standard_t(3, (length, 1)), memory=0.5)
    scale = np.exp(0.5 * np.sin(hours * 2 * np.pi / 1000))
    yield "changing scale", scale * rng.standard_normal((length, 2))
    machine = make_sensor_stream(length, n_faults=0, missing=0.0, freq="5min", random_state=3)
    yield "machine", machine.clean.to_numpy()


def _remembered(noise: Array, *, memory: float) -> Array:
    values = np.zeros_like(noise)
    for t in range(1, len(noise)):
        values[t] = memory * values[t - 1] + noise[t]
    return values
