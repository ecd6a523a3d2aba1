"""Does the graph say what the model says? Both are run over the same readings and compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_ts.config import Transform
from xlstm_ts.exceptions import ExportError
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel
from xlstm_ts.transforms import restored, transformed

Floats = NDArray[Any]
STEPS = 2000
TOLERANCE = 1e-4
MISSING_SHARE = 0.05
LONG_GAP = 100
LEVEL_SHIFT = 10
CHUNK = 100
# Readings that are stepped between two chunks of a warm-up graph: each meets another phase.
STEPS_BETWEEN = 7
PERSISTENCE = 0.98
SMALLEST, LARGEST = (float(part) for part in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
# Spreads that a level may lie off before float32 loses a ten-thousandth of one.
FAR = 1000


class Parity(NamedTuple):
    """The worst errors of a graph over chained steps, in scaled units.

    The unit is the scale in force at a reading (`XLSTM.scale`): what the model divides a channel
    by. A forecast of a channel that has just jumped is as good as its scale, not as its past.

    Attributes
    ----------
    random, real : float
        The worst errors over random and over real readings.
    steps : int
        Readings of each.
    weights_error : float or None
        Where weights were rounded: the root mean square of the largest error at a reading, over
        the worse of the two.
    """

    random: float
    real: float
    steps: int
    weights_error: float | None = None

    def worse(self, other: Parity) -> Parity:
        """Return the larger of the errors of two checks."""
        return Parity(max(self.random, other.random), max(self.real, other.real), self.steps)


def check_parity(
    model: XLSTM,
    path: Path,
    *,
    readings: NDArray[np.float64],
    columns: NDArray[np.float64] | None = None,
    warm_up: Path | None = None,
) -> Parity:
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
    columns : ndarray of float64, shape (T, K), optional
        Raw covariates of these readings.
    warm_up : Path, optional
        The warm-up graph: checked in turn with some steps, at the end of each chunk and after.

    Returns
    -------
    Parity
        The worst errors.

    Raises
    ------
    ExportError
        Where a forecast is not finite or an error is above 1e-4.
    """
    columns = np.empty((len(readings), 0)) if columns is None else columns
    worst = parity_errors(model, path, readings=readings, columns=columns, warm_up=warm_up).max(1)
    if not (worst <= TOLERANCE).all():  # true of NaN
        kind = "graph" if warm_up is None else "warm-up graph"
        raise ExportError(
            f"The {kind} differs from the model by {worst[0]:.1e} of a channel's scale over "
            f"{STEPS} random readings and by {worst[1]:.1e} over real ones, {TOLERANCE:.0e} is "
            f"allowed. If the real ones do, {_cure(model)}{_of_columns(model, path)}. If the "
            "random ones alone do, the weights magnify rounding: fit with a lower `learning_rate` "
            "or more `dropout`. No file was written."
        )
    return Parity(random=float(worst[0]), real=float(worst[1]), steps=STEPS)


def parity_errors(
    model: XLSTM,
    path: Path,
    *,
    readings: NDArray[np.float64],
    columns: NDArray[np.float64],
    warm_up: Path | None = None,
) -> NDArray[np.float64]:
    """Return the largest error at each of the random and of the real readings of the check.

    Parameters
    ----------
    model, path, readings, columns, warm_up
        As for `check_parity`.

    Returns
    -------
    ndarray of float64, shape (2, N)
        In scaled units; NaN where a forecast is not a number. N is `STEPS`, or of a warm-up graph
        the forecasts that it makes of them.
    """
    rng = np.random.default_rng(0)
    center, spread = (part.cpu().double().numpy() for part in (model.center, model.spread))
    transform = model.config.target_transform
    random = center + spread * _wander(rng, (STEPS, len(spread)))
    random[rng.random(random.shape) < MISSING_SHARE] = np.nan
    quarter = STEPS // 4
    random[quarter : quarter + LONG_GAP] = np.nan
    random[2 * quarter : 2 * quarter + LONG_GAP] = random[2 * quarter]  # a stuck sensor
    random[3 * quarter :] += LEVEL_SHIFT * spread
    random = restored(random, transform).clip(-LARGEST, LARGEST)
    real = np.resize(readings, (STEPS, len(spread)))
    beside = np.resize(columns, (STEPS + model.config.horizon, columns.shape[1]))
    # Made-up columns have digits that a stream can be told; real ones may have more, and those that
    # are lost count.
    shaken = _shaken(rng, beside, model).astype(np.float32).astype(np.float64)
    pairs = ((random, shaken), (real, beside))
    with _one_thread():
        return np.stack(
            [
                worst_errors(model, path, readings=one, columns=other, warm_up=warm_up)
                for one, other in pairs
            ]
        )


def _cure(model: XLSTM) -> str:
    """Say what helps where real readings are lost in float32."""
    lost = "a level far above the spread of a channel is lost in float32: "
    if model.config.target_transform is None:
        return f"{lost}subtract it before fitting"
    return f"{lost}fit without a transform, which such readings do not need"


def _of_columns(model: XLSTM, path: Path) -> str:
    """Name the covariates whose level is far above their spread."""
    center, spread = (part.numpy(force=True) for part in model.covariates.units)
    far = np.abs(center) > FAR * spread
    columns = StreamModel(path).contract.columns  # cyclic ones come last and have no level
    named = [column.name for column, is_far in zip(columns, far, strict=False) if is_far]
    return f", as that of the columns {', '.join(named)} of X" if named else ""


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


def _shaken(
    rng: np.random.Generator, columns: NDArray[np.float64], model: XLSTM
) -> NDArray[np.float64]:
    """Return covariates with numbers that wander and have gaps; cyclic ones stay what they are."""
    center, spread = (part.numpy(force=True) for part in model.covariates.units)
    shaken = columns.copy()
    numbers = center + spread * _wander(rng, (len(columns), len(center)))
    numbers[rng.random(numbers.shape) < MISSING_SHARE] = np.nan
    shaken[:, : len(center)] = numbers
    # What is static stays the same for ever.
    static = slice(len(center) - model.config.n_static, len(center))
    shaken[:, static] = columns[:, static]
    return shaken


def worst_errors(
    model: XLSTM,
    path: Path,
    *,
    readings: NDArray[np.float64],
    columns: NDArray[np.float64] | None = None,
    warm_up: Path | None = None,
) -> NDArray[np.float64]:
    """Return the largest error of a fresh stream at each reading, in scaled units.

    Parameters
    ----------
    model : XLSTM
        The model; it is run in float64, in its parallel form.
    path : Path
        The graph.
    readings : ndarray of float64, shape (T, C)
        Raw readings, NaN where missing.
    columns : ndarray of float64, shape (T + H, K), optional
        Raw covariates of the readings and of those after them.
    warm_up : Path, optional
        The warm-up graph: it takes a chunk, some readings are stepped, and so on.

    Returns
    -------
    ndarray of float64, shape (T,)
        The errors; NaN where a forecast is not a number. With a warm-up graph none of the readings
        inside a chunk, which have no forecast.
    """
    graph, truth = StreamModel(path, warm_up=warm_up), copy.deepcopy(model).cpu().double().eval()
    # Any values: what is static is laid out with the other columns here.
    static = {c.name: c.category or 0 for c in graph.contract.columns if c.role == "static"}
    stream, state = graph.create_stream(static=static), truth.initial_state(1)
    horizon, transform = model.config.horizon, model.config.target_transform
    if columns is None:
        columns = np.empty((len(readings) + horizon, 0))
    # The digits that a column loses in float32 count, unlike those of readings: a stream of these
    # has no others to begin with, while X may be dates or meters of any size.
    ahead = truth.covariates.ahead(torch.as_tensor(columns)).numpy()
    at_once = 1 if graph.warm_up_graph is None else graph.warm_up_graph.chunk
    piece = CHUNK if graph.warm_up_graph is None else at_once + STEPS_BETWEEN
    errors = []
    for start in range(0, len(readings), piece):
        # As a stream sees them.
        part = readings[start : start + piece].astype(np.float32)
        first = start + min(at_once, len(part))
        stop = start + len(part)
        given, beside = (
            torch.as_tensor(rows, dtype=torch.float64)[None]
            for rows in (part, columns[start : stop + horizon])
        )
        with torch.inference_mode():
            scale = truth.scale(given, state)[0].numpy()
            expected, state = truth(given, state, beside)
        warmed = stream.warm_up_columns(
            part[: first - start], columns[start:first], ahead[first : first + horizon]
        )
        stepped = [
            stream.step_columns(part[t - start], columns[t], ahead[t + 1 : t + 1 + horizon])[1]
            for t in range(first, stop)
        ]
        got, compared = np.stack([warmed.quantiles, *stepped]), slice(first - start - 1, None)
        wrong = _wrong(got, expected[0, compared].numpy(), transform)
        errors.append((wrong / scale[compared, None, :, None]).max((1, 2, 3)))
    return np.concatenate(errors)


def _wrong(got: Floats, expected: Floats, transform: Transform) -> Floats:
    """Return the errors of forecasts on the scale of the model."""
    if transform == "log":
        # What float32 cannot hold is its largest or smallest number to both.
        got, expected = (part.clip(SMALLEST, LARGEST) for part in (got, expected))
    right = transformed(expected, transform)
    wrong = np.abs(transformed(got, transform) - right)
    if transform == "log1p":
        # Near -1 float32 has no digits of 1 + y: below zero an error counts in units.
        wrong *= np.exp(right).clip(max=1)
    return wrong
