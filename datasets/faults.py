"""Faults of eight kinds to put into clean readings."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FAULT_KINDS = (
    "spike",
    "stuck",
    "drift",
    "level_shift",
    "broken_correlation",
    "noise",
    "oscillation",
    "gain",
)
"""Every kind of fault, in the order in which `plan_faults` deals them."""

SLOT_MINIMUM = 50
"""Fewest readings of stream per fault: the longest fault and its surroundings."""

_LENGTHS = {
    "spike": (1, 3),
    "stuck": (8, 24),
    "drift": (24, 48),
    "level_shift": (12, 36),
    "broken_correlation": (12, 36),
    "noise": (12, 36),
    "oscillation": (12, 36),
    "gain": (12, 36),
}
# In standard deviations of the clean channel, but for "gain": by how much its factor is off 1.
_SIZES = {
    "spike": (3.0, 6.0),
    "drift": (2.0, 4.0),
    "level_shift": (1.5, 3.0),
    "noise": (0.5, 1.0),
    "oscillation": (0.5, 1.0),
    "gain": (0.5, 0.9),
}
_PERIOD = 6  # readings of an oscillation


class Fault(NamedTuple):
    """One fault of one channel.

    Attributes
    ----------
    kind : str
        One of `FAULT_KINDS`.
    channel : int
        Column of the channel.
    start, stop : int
        First faulty reading, and the first one after the fault.
    size : float
        Signed size in standard deviations of the clean channel, or for "gain" what is added to
        its factor of 1; 0 where the kind has none.
    """

    kind: str
    channel: int
    start: int
    stop: int
    size: float


def plan_faults(
    rng: np.random.Generator, *, n_faults: int, n_channels: int, start: int, stop: int
) -> list[Fault]:
    """Draw faults that do not overlap, in order of time.

    Parameters
    ----------
    rng : np.random.Generator
        Source of every draw.
    n_faults : int
        How many; kinds and channels are dealt evenly, so eight faults hold every kind.
    n_channels : int
        Number of channels.
    start, stop : int
        Readings in which faults may lie, at least `SLOT_MINIMUM` for each fault.

    Returns
    -------
    list of Fault
        The faults. A reading before, after and between any two is free of faults.
    """
    kinds = rng.permutation(np.resize(np.array(FAULT_KINDS), n_faults))
    channels = rng.permutation(np.resize(np.arange(n_channels), n_faults))
    edges = np.linspace(start, stop, n_faults + 1).astype(int)
    return [
        _draw_fault(rng, kind=str(kinds[i]), channel=int(channels[i]), slot=edges[i : i + 2])
        for i in range(n_faults)
    ]


def insert_faults(
    clean: NDArray[np.float64], *, faults: list[Fault], half_day: int
) -> NDArray[np.float64]:
    """Return a copy of the clean readings with the faults in it.

    Parameters
    ----------
    clean : np.ndarray of shape (n_readings, n_channels), float64
        Readings without faults.
    faults : list of Fault
        What to insert.
    half_day : int
        Readings in half a day: how far away a broken correlation takes its values from.

    Returns
    -------
    np.ndarray of shape (n_readings, n_channels), float64
        Equal to `clean` outside the faults.
    """
    faulty = clean.copy()
    scale = clean.std(axis=0)
    for fault in faults:
        span = slice(fault.start, fault.stop)
        channel = clean[:, fault.channel]
        faulty[span, fault.channel] = _alter(
            channel, fault=fault, scale=float(scale[fault.channel]), half_day=half_day
        )
    return faulty


def _draw_fault(
    rng: np.random.Generator, *, kind: str, channel: int, slot: NDArray[np.int_]
) -> Fault:
    length = int(rng.integers(*_LENGTHS[kind], endpoint=True))
    # The first reading of a slot stays clean, so that neighbours never touch.
    start = int(rng.integers(slot[0] + 1, slot[1] - length, endpoint=True))
    sign = rng.choice((-1.0, 1.0))
    size = sign * rng.uniform(*_SIZES[kind]) if kind in _SIZES else 0.0
    return Fault(kind=kind, channel=channel, start=start, stop=start + length, size=float(size))


def _alter(
    channel: NDArray[np.float64], *, fault: Fault, scale: float, half_day: int
) -> NDArray[np.float64]:
    positions = np.arange(fault.start, fault.stop)
    normal = channel[positions]
    if fault.kind == "stuck":
        return np.full_like(normal, channel[fault.start - 1])
    if fault.kind == "broken_correlation":
        # Each value is usual in itself, but belongs to another load.
        return channel[(positions - half_day) % channel.size]
    if fault.kind == "drift":
        return normal + fault.size * scale * np.linspace(0.0, 1.0, normal.size + 1)[1:]
    if fault.kind == "noise":
        # The place of a fault is its seed: a copy needs no generator and is the same each time.
        return normal + fault.size * scale * np.random.default_rng(fault.start).standard_normal(
            normal.size
        )
    if fault.kind == "oscillation":
        phase = 2 * np.pi * (np.arange(normal.size) + 0.5) / _PERIOD
        return normal + fault.size * scale * np.sin(phase)
    if fault.kind == "gain":
        return normal + fault.size * (normal - channel.mean())
    return normal + fault.size * scale
