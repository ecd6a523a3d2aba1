"""Does the graph say what the model says? Both are run over the same readings and compared."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_ts.exceptions import ExportError
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel

STEPS = 2000
TOLERANCE = 1e-4
MISSING_SHARE = 0.05
CHUNK = 100


class Parity(NamedTuple):
    """The worst errors of a graph over chained steps, in units of each channel's spread."""

    random: float
    real: float
    steps: int


def check_parity(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> Parity:
    """Compare a step graph with its model, step after step with the state carried.

    The model runs in float64 in its parallel form, so that the two share neither arithmetic nor
    code. Readings missing at random are part of the comparison.

    Parameters
    ----------
    model : XLSTM
        The model that the graph was built from.
    path : Path
        The graph.
    readings : ndarray of float64, shape (T, C)
        Real raw readings, NaN where missing; repeated until there are enough.

    Returns
    -------
    Parity
        The worst errors.

    Raises
    ------
    ExportError
        Where an error is above 1e-4 or a forecast is not finite.
    """
    truth = copy.deepcopy(model).cpu().double().eval()
    rng = np.random.default_rng(0)
    spread = truth.spread.numpy()
    walk = rng.standard_normal((STEPS, len(spread))).cumsum(0) / 10
    random = truth.center.numpy() + spread * walk
    random[rng.random(random.shape) < MISSING_SHARE] = np.nan
    real = np.resize(readings, (STEPS, len(spread)))
    worst = [_worst_error(truth, path, readings=part) for part in (random, real)]
    if not max(worst) <= TOLERANCE:
        raise ExportError(
            f"The graph differs from the model by {max(worst):.1e} of a channel's spread over "
            f"{STEPS} readings, {TOLERANCE:.0e} is allowed. A level far above the spread of a "
            "channel is lost in float32: subtract it before fitting. No file was written."
        )
    return Parity(random=worst[0], real=worst[1], steps=STEPS)


def _worst_error(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> float:
    """Return the largest error of a fresh stream, NaN where a forecast is not finite."""
    stream = StreamModel(path).create_stream()
    single = readings.astype(np.float32).astype(np.float64)
    spread = model.spread.numpy()[:, None]
    state, worst = model.initial_state(1), 0.0
    for start in range(0, len(single), CHUNK):
        part = single[start : start + CHUNK]
        with torch.inference_mode():
            expected, state = model(torch.as_tensor(part)[None], state)
        got = np.stack([stream.step(reading).quantiles for reading in part])
        worst = np.maximum(worst, np.max(np.abs(got - expected[0].numpy()) / spread))
    return float(worst)
