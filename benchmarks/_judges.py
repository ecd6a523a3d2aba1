"""What a detector is judged by: ranges found, sensors named, alarms raised. No point adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Mask = NDArray[np.bool_]


class Alarms(NamedTuple):
    """How the alarms at single readings compare with the labels, each a share from 0 to 1."""

    f1: float
    false_alarms: float
    missed: float


class Span(NamedTuple):
    """A labelled anomaly: its first reading and the one after its last."""

    start: int
    stop: int


def vus_pr(score: Array, label: Mask, *, window: int) -> float:
    """Return the volume under the precision-recall surface, by the code of TSB-AD itself.

    Raises
    ------
    ModuleNotFoundError
        Where TSB-AD is not installed. It asks for an old numpy, so it goes in by itself:
        `pip install --no-deps TSB-AD==1.5`.
    """
    from TSB_AD.evaluation.basic_metrics import generate_curve

    return float(generate_curve(label.astype(int), score, window, "opt", 250)[-1])


def judge_alarms(alarm: Mask, label: Mask) -> Alarms:
    """Return F1, the share of normal readings with an alarm, that of anomalous ones without."""
    hits, false = np.sum(alarm & label), np.sum(alarm & ~label)
    missed = np.sum(~alarm & label)
    return Alarms(
        f1=float(2 * hits / max(2 * hits + false + missed, 1)),
        false_alarms=float(false / max(np.sum(~label), 1)),
        missed=float(missed / max(np.sum(label), 1)),
    )


def judge_channels(blame: Array, true: Sequence[int]) -> tuple[float, float]:
    """Return HitRate@100 % and top-1 of one event by the blame of each channel.

    As many channels as are true are named, the most blamed first: the hit rate is the share of
    these that are true, top-1 whether the first is.
    """
    named = np.argsort(-blame, kind="stable")[: len(true)]
    right = np.isin(named, true)
    return float(right.mean()), float(right[0])


def delays(starts: NDArray[np.int64], spans: Sequence[Span], *, grace: int) -> Array:
    """Return after how many readings an alarm is raised in each span; NaN where none is.

    `starts` are the readings at which alarms begin, in order; an alarm up to `grace` readings after
    a span still counts as its own.
    """
    found = np.full(len(spans), np.nan)
    for i, span in enumerate(spans):
        after = starts[(starts >= span.start) & (starts < span.stop + grace)]
        if after.size:
            found[i] = after[0] - span.start
    return found


def strays(starts: NDArray[np.int64], spans: Sequence[Span], *, grace: int) -> int:
    """Return how many alarms begin in no span."""
    inside = np.zeros(starts.size, dtype=bool)
    for span in spans:
        inside |= (starts >= span.start) & (starts < span.stop + grace)
    return int(np.sum(~inside))
