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
# Two float32 computations of one number may err in opposite ways, and one may be the luckier.
ROUNDINGS = 3
MISSING_SHARE = 0.05
LONG_GAP = 100
LEVEL_SHIFT = 10
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
        Where a forecast is not finite, or an error is above 1e-4 and above three times what the
        model itself loses in float32.
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
    allowed = TOLERANCE
    if np.isfinite(worst).all() and worst.max() > TOLERANCE:  # does float32 allow no better?
        rounding = max(_rounding_error(model, readings=part) for part in (random, real))
        allowed = max(TOLERANCE, ROUNDINGS * rounding)
    if not (worst <= allowed).all():  # true of NaN
        raise ExportError(
            f"The graph differs from the model by {worst.max():.1e} of a channel's spread over "
            f"{STEPS} readings, {allowed:.0e} is allowed. A level far above the spread of a "
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
    stream = StreamModel(path).create_stream()
    single, truth = _rounded(readings), _double(model)
    spread = truth.spread.numpy()[:, None]
    errors = []
    for part, expected in _forecasts(truth, single):
        got = np.stack([stream.step(reading).quantiles for reading in part])
        errors.append((np.abs(got - expected) / spread).max((1, 2, 3)))
    return np.concatenate(errors)


def _rounding_error(model: XLSTM, *, readings: NDArray[np.float64]) -> float:
    """Return what the steps of the model itself lose in float32, the readings' units aside."""
    truth = _double(model)
    standard = (_rounded(readings) - truth.center.numpy()) / truth.spread.numpy()
    truth.center.zero_()
    truth.spread.fill_(1)
    expected = np.concatenate([forecast for _, forecast in _forecasts(truth, standard)])
    single = truth.float()
    state, worst = single.initial_state(1), 0.0
    for reading, forecast in zip(standard, expected, strict=True):
        with torch.inference_mode():
            got, state = single.step(torch.as_tensor(reading)[None], state)
        worst = max(worst, float(np.abs(got[0].numpy() - forecast).max()))
    return worst


def _forecasts(
    model: XLSTM, readings: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Run a model over readings in its parallel form, piece by piece with the state carried."""
    state = model.initial_state(1)
    for start in range(0, len(readings), CHUNK):
        part = readings[start : start + CHUNK]
        with torch.inference_mode():
            forecast, state = model(torch.as_tensor(part)[None], state)
        yield part, forecast[0].numpy()


def _double(model: XLSTM) -> XLSTM:
    return copy.deepcopy(model).cpu().double().eval()


def _rounded(readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the readings as a stream sees them."""
    return readings.astype(np.float32).astype(np.float64)
