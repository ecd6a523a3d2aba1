"""Does the graph say what the model says? Both are run over the same readings and compared."""

from __future__ import annotations

import copy
from itertools import pairwise
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
PERSISTENCE = 0.98


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
    rng = np.random.default_rng(0)
    center, spread = (part.cpu().double().numpy() for part in (model.center, model.spread))
    random = center + spread * _wander(rng, (STEPS, len(spread)))
    random[rng.random(random.shape) < MISSING_SHARE] = np.nan
    real = np.resize(readings, (STEPS, len(spread)))
    worst = [float(worst_errors(model, path, readings=part).max()) for part in (random, real)]
    if not max(worst) <= TOLERANCE:
        raise ExportError(
            f"The graph differs from the model by {max(worst):.1e} of a channel's spread over "
            f"{STEPS} readings, {TOLERANCE:.0e} is allowed. A level far above the spread of a "
            "channel is lost in float32: subtract it before fitting. No file was written."
        )
    return Parity(random=worst[0], real=worst[1], steps=STEPS)


def _wander(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return first-order autoregressive noise of unit spread and a memory of fifty readings."""
    noise = rng.standard_normal(shape)
    for before, now in pairwise(noise):
        now *= np.sqrt(1 - PERSISTENCE**2)
        now += PERSISTENCE * before
    return noise


def worst_errors(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest error of a fresh stream at each reading, in units of the spread.

    Parameters
    ----------
    model : XLSTM
        The model; it is run in float64, in its parallel form.
    path : Path
        The graph.
    readings : ndarray of float64, shape (T, C)
        Raw readings, NaN where missing.

    Returns
    -------
    ndarray of float64, shape (T,)
        The errors; NaN where a forecast is not a number.
    """
    truth = copy.deepcopy(model).cpu().double().eval()
    stream = StreamModel(path).create_stream()
    single = readings.astype(np.float32).astype(np.float64)
    spread = truth.spread.numpy()[:, None]
    state, errors = truth.initial_state(1), []
    for start in range(0, len(single), CHUNK):
        part = single[start : start + CHUNK]
        with torch.inference_mode():
            expected, state = truth(torch.as_tensor(part)[None], state)
        got = np.stack([stream.step(reading).quantiles for reading in part])
        errors.append((np.abs(got - expected[0].numpy()) / spread).max((1, 2, 3)))
    return np.concatenate(errors)
