"""Does the graph say what the model says? Both are run over the same readings and compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
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
LONG_GAP = 100
LEVEL_SHIFT = 10
CHUNK = 100
PERSISTENCE = 0.98


class Parity(NamedTuple):
    """The worst errors of a graph over chained steps, in scaled units.

    The unit is the scale in force at a reading (`XLSTM.scale`): what the model divides a channel
    by. A forecast of a channel that has just jumped is as good as its scale, not as its past.
    """

    random: float
    real: float
    steps: int


def check_parity(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> Parity:
    """Compare a step graph with its model, step after step with the state carried.

    The model runs in float64 in its parallel form, so that the two share neither arithmetic nor
    code. The random readings hold single and long gaps, a stuck sensor and a shift of the level.

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
        Where a forecast is not finite or an error is above 1e-4.
    """
    with _one_thread():
        return _check(model, path, readings=readings)


def _check(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> Parity:
    rng = np.random.default_rng(0)
    center, spread = (part.cpu().double().numpy() for part in (model.center, model.spread))
    random = center + spread * _wander(rng, (STEPS, len(spread)))
    random[rng.random(random.shape) < MISSING_SHARE] = np.nan
    quarter = STEPS // 4
    random[quarter : quarter + LONG_GAP] = np.nan
    random[2 * quarter : 2 * quarter + LONG_GAP] = random[2 * quarter]  # a stuck sensor
    random[3 * quarter :] += LEVEL_SHIFT * spread
    real = np.resize(readings, (STEPS, len(spread)))
    worst = np.array([worst_errors(model, path, readings=part).max() for part in (random, real)])
    if not (worst <= TOLERANCE).all():  # true of NaN
        raise ExportError(
            f"The graph differs from the model by {worst.max():.1e} of a channel's scale over "
            f"{STEPS} readings, {TOLERANCE:.0e} is allowed. A level far above the spread of a "
            "channel is lost in float32: subtract it before fitting. No file was written."
        )
    return Parity(random=float(worst[0]), real=float(worst[1]), steps=STEPS)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: at one reading at a time, more wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _wander(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return first-order autoregressive noise of unit spread and a memory of fifty readings."""
    noise = rng.standard_normal(shape)
    for before, now in pairwise(noise):
        now *= np.sqrt(1 - PERSISTENCE**2)
        now += PERSISTENCE * before
    return noise


def worst_errors(model: XLSTM, path: Path, *, readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest error of a fresh stream at each reading, in scaled units.

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
    stream, truth = StreamModel(path).create_stream(), copy.deepcopy(model).cpu().double().eval()
    state = truth.initial_state(1)
    errors = []
    for start in range(0, len(readings), CHUNK):
        # As a stream sees them.
        part = readings[start : start + CHUNK].astype(np.float32)
        given = torch.as_tensor(part, dtype=torch.float64)[None]
        with torch.inference_mode():
            scale = truth.scale(given, state)[0].numpy()
            expected, state = truth(given, state)
        got = np.stack([stream.step(reading).quantiles for reading in part])
        errors.append((np.abs(got - expected[0].numpy()) / scale[:, None, :, None]).max((1, 2, 3)))
    return np.concatenate(errors)
