"""Generated streams whose faults are known: a machine, and a pair of sensors that part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _judges import Span
from _rivals import Array

from xlstm_ts.datasets.synthetic import make_sensor_stream

DAY, CLEAN_DAYS, DAYS = 288, 16, 48  # a reading each 5 minutes
FAULTS = 16
MEMORY = 100.0  # readings that what the pair measures remembers
APART, FADE = 144, 24  # readings of a parting, and those in which it begins and ends
PAIR = "pair that parts"


class Stream(NamedTuple):
    """Readings `(T, C)`, and the span, kind and channel of each fault."""

    readings: Array
    spans: list[Span]
    kinds: list[str]
    channels: list[int]


def machine(seed: int) -> Stream:
    """Return the five sensors of a machine, with faults of eight kinds after clean days."""
    made = make_sensor_stream(
        DAYS * DAY,
        n_faults=FAULTS,
        missing=0.0,
        fault_free=CLEAN_DAYS / DAYS,
        freq="5min",
        random_state=seed,
    )
    starts, ends = (made.readings.index.get_indexer(made.faults[side]) for side in ("start", "end"))
    return Stream(
        readings=made.readings.to_numpy(),
        spans=[Span(start, end + 1) for start, end in zip(starts, ends, strict=True)],
        kinds=made.faults["kind"].tolist(),
        channels=made.readings.columns.get_indexer(made.faults["channel"]).tolist(),
    )


def pair(seed: int) -> Stream:
    """Return two sensors of one thing, of which one now and then tells of another like it.

    There is no jump, and each sensor by itself looks as always: only together are they wrong.
    """
    rng = np.random.default_rng(seed)
    thing, other = _wander(rng), _wander(rng)
    starts = np.arange(CLEAN_DAYS * DAY + DAY, DAYS * DAY, 8 * DAY)
    ramp = np.minimum(1.0, np.arange(1, APART + 1) / FADE)
    share = np.zeros(DAYS * DAY)
    for start in starts:
        share[start : start + APART] = np.minimum(ramp, ramp[::-1])
    sensors = np.stack([thing, (1 - share) * thing + share * other], axis=1)
    return Stream(
        readings=sensors + 0.1 * rng.standard_normal(sensors.shape),
        spans=[Span(int(start), int(start) + APART) for start in starts],
        kinds=[PAIR] * len(starts),
        channels=[1] * len(starts),
    )


def _wander(rng: np.random.Generator) -> Array:
    """Return a first-order autoregression of unit variance."""
    keep = np.exp(-1 / MEMORY)
    level = np.zeros(DAYS * DAY)
    shocks = np.sqrt(1 - keep**2) * rng.standard_normal(len(level))
    for t in range(1, len(level)):
        level[t] = keep * level[t - 1] + shocks[t]
    return level
