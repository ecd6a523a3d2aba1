"""Detectors of the field to hold ours against: how surprising each reading of each channel is.

Each takes readings `(T, C)` of which the first `known` are for training, and returns its surprise
`(T, C)`, in standard deviations where it knows any; or `(T, 1)` where it cannot tell channels
apart. All are causal: a surprise depends on the readings up to it, but for the training part.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

Array = NDArray[np.float64]

WINDOW = 16  # readings that the forest and the components see at once
CLIP = 3.0  # standard deviations, beyond which an error teaches no more


def frozen_z(readings: Array, *, known: int) -> Array:
    """Return distances from the mean of the training part, by its standard deviation."""
    return np.abs(standardised(readings, known))


def moving_z(readings: Array, *, known: int, window: int = 200) -> Array:
    """Return distances from the mean of the readings before, by their standard deviation."""
    before = pd.DataFrame(readings).shift().rolling(window, min_periods=WINDOW)
    z = (readings - before.mean()) / before.std().clip(lower=_floor(readings[:known]), axis=1)
    return z.abs().fillna(0.0).to_numpy()


def online_ar(readings: Array, *, known: int, order: int = 12, forgetting: float = 0.9995) -> Array:
    """Return errors of an autoregression by recursive least squares, by their running scale."""
    z = standardised(readings, known)
    length, channels = z.shape
    weights = np.zeros((channels, order + 1))
    weights[:, 0] = 1.0  # at first, nothing changes
    covariance = np.tile(10.0 * np.eye(order + 1), (channels, 1, 1))
    past = np.ones((channels, order + 1))
    past[:, :order] = z[0][:, None]
    errors = np.zeros_like(z)
    scale = np.ones(channels)
    for t in range(1, length):
        error = z[t] - np.einsum("ck,ck->c", weights, past)
        errors[t] = error / scale
        error = np.clip(error, -CLIP * scale, CLIP * scale)
        share = max(0.005, 1 / (t + 10))
        scale = np.maximum(np.sqrt(scale**2 + share * (error**2 - scale**2)), 1e-3)
        gain = np.einsum("ckj,cj->ck", covariance, past)
        gain /= (forgetting + np.einsum("ck,ck->c", past, gain))[:, None]
        weights += gain * error[:, None]
        covariance -= gain[:, :, None] * np.einsum("cj,cjk->ck", past, covariance)[:, None]
        covariance /= forgetting
        past[:, 1:order] = past[:, : order - 1].copy()
        past[:, 0] = z[t]
    return np.abs(errors)


def isolation_forest(readings: Array, *, known: int) -> Array:
    """Return how easily the window up to each reading is told apart from those of training."""
    windows = _windows(standardised(readings, known))
    forest = IsolationForest(random_state=0).fit(windows[:known])
    return -forest.score_samples(windows)[:, None]


def pca(readings: Array, *, known: int) -> Array:
    """Return errors of each reading, rebuilt from the main components of windows of training."""
    z = standardised(readings, known)
    windows = _windows(z)
    components = PCA(0.9, svd_solver="full", random_state=0).fit(windows[:known])
    rebuilt = components.inverse_transform(components.transform(windows))
    error = np.abs(z - rebuilt[:, -z.shape[1] :])
    return error / np.maximum(error[:known].std(0), 1e-3)


def smoothed(surprise: Array, *, span: int) -> Array:
    """Return one score of a reading: its surprise over all channels, and in those before it."""
    total = np.log1p(np.sqrt(np.mean(surprise**2, axis=1)))
    return pd.Series(total).ewm(span=span, adjust=False).mean().to_numpy()


def units(readings: Array, known: int) -> tuple[Array, Array]:
    """Return mean and standard deviation of the training part; 1 where a channel stands still."""
    train = readings[:known]
    scale = train.std(0)
    return train.mean(0), np.where(scale > 0, scale, 1.0)


def standardised(readings: Array, known: int) -> Array:
    """Return the readings in units of their training part."""
    center, scale = units(readings, known)
    return (readings - center) / scale


def _floor(train: Array) -> Array:
    """Return the least standard deviation to divide by, for channels that stand still."""
    return np.maximum(1e-3 * train.std(0), 1e-9)


def _windows(z: Array) -> NDArray[np.float64]:
    padded = np.concatenate([np.repeat(z[:1], WINDOW - 1, axis=0), z])
    views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0)
    return views.transpose(0, 2, 1).reshape(len(z), -1)
