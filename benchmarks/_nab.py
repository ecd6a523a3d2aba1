"""The scoring rules of the Numenta Anomaly Benchmark, profile "standard", from their description.

A. Lavin, S. Ahmad: Evaluating Real-Time Anomaly Detection Algorithms, ICMLA 2015. In each labelled
window the best detection counts, worth the more the earlier it is; a detection outside costs the
more the further it lies behind the window before it; a window without detection costs a point. All
files share one threshold, by the rules the one that suits the detector best. 0 is a detector that
stays silent, 100 one that reports each window at its first reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

FALSE_ALARM = 0.11  # what a detection outside costs at most; a window is worth 1
FAR = 3.0  # widths of a window behind it, from where on a detection costs all of that
PROBATION, PROBATION_LENGTH = 0.15, 5000  # the share that is not judged, and of how many readings


class Judged(NamedTuple):
    """A file: the score of each reading, and the first and last position of each window."""

    score: Array
    windows: NDArray[np.int64]


def locate_windows(series: pd.Series, windows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the positions of the first and last reading of each window, `(windows, 2)`."""
    # A clock that is put back shows a time twice: the first is meant.
    position = pd.Series(np.arange(len(series)), index=series.index).groupby(level=0).first()
    return np.stack([position[windows["start"]], position[windows["end"]]], axis=-1)


def probation(length: int) -> int:
    """Return how many readings of a file are not judged."""
    return int(PROBATION * min(length, PROBATION_LENGTH))


def score_by_threshold(files: Sequence[Judged]) -> pd.Series:
    """Return the normalised score at each threshold, from the highest down.

    A reading is detected where its score is at or above the threshold.
    """
    parts = [_worth(file).assign(file=i) for i, file in enumerate(files)]
    table = pd.concat(parts).sort_values("score", ascending=False, kind="stable")
    gain = table["worth"].copy()
    inside = table["window"] >= 0
    window = [table.loc[inside, "file"], table.loc[inside, "window"]]
    best = gain[inside].groupby(window, sort=False).cummax()
    # Until it is found, a window costs a point.
    gain[inside] = best - best.groupby(window, sort=False).shift(fill_value=-1.0)
    total = gain.cumsum().groupby(table["score"], sort=False).last()
    return 100 * total / (2 * sum(len(file.windows) for file in files))


def best_score(files: Sequence[Judged]) -> float:
    """Return the normalised score at the threshold that suits best; 0 is to stay silent."""
    return max(0.0, float(score_by_threshold(files).max()))


def score_at(files: Sequence[Judged], *, threshold: float) -> float:
    """Return the normalised score at a threshold that was chosen without the labels."""
    scores = score_by_threshold(files)
    return float(scores[scores.index >= threshold].iloc[-1:].sum())


def _worth(file: Judged) -> pd.DataFrame:
    """Return score, worth and window (-1 outside) of each reading that is judged."""
    position = np.arange(len(file.score))
    worth = np.full(len(position), -FALSE_ALARM)
    window = np.full(len(position), -1)
    for number, (first, last) in enumerate(file.windows):
        width = last - first + 1
        after = position > last
        worth[after] = FALSE_ALARM * _sigmoid((position[after] - last) / max(width - 1, 1))
        inside = (position >= first) & ~after
        worth[inside] = _sigmoid((position[inside] - last - 1) / width) / _sigmoid(-1.0)
        window[inside] = number
    table = pd.DataFrame({"score": file.score, "worth": worth, "window": window}, index=position)
    return table.iloc[probation(len(position)) :].reset_index(drop=True)


def _sigmoid(y: Array | float) -> Array:
    """Return the worth of a detection at `y` widths behind the end of a window, from 1 to -1."""
    return np.where(np.asarray(y) > FAR, -1.0, 2 / (1 + np.exp(5 * np.asarray(y))) - 1)
