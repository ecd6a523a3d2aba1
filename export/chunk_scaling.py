"""The nodes of the warm-up graph for the causal scaling of all readings of a chunk at once.

A reading keeps the share 1 - s of what was before it, and a product of such shares is a quotient:
of the readings seen before, as long as these weigh alike, and a power of rho from then on. With the
products B_tj from reading j up to the one before t, lower triangular, the steps of `scaling_step`
become two sums of terms that no later difference cancels:

    e = B (x - x before),  deviation = (1 - s) e,  variance = (1 - s) B (s e e)

with the deviation and the variance before the chunk added to the first terms. Sums are taken of
differences of neighbouring readings, as in the step graph. Letters of shapes as in `graph`; L is
readings in a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xlstm_ts.export.builder import Builder
from xlstm_ts.scaling import memory

ZERO, ONE = np.float32(0), np.float32(1)
# Added to an exponent, leaves nothing of it; with that of an absent token it stays finite.
LATER = -1e30


class ChunkScaling(NamedTuple):
    """Names of what is in force at each reading of a chunk, `(B, C, L)` each.

    Attributes
    ----------
    seen : str
        How many readings the mean is of.
    last : str
        The reading, or the last one before a gap.
    deviation : str
        Its deviation from the mean.
    variance : str
        The variance.
    """

    seen: str
    last: str
    deviation: str
    variance: str


def write_scaling(
    g: Builder, readings: str, mark: str, before: ChunkScaling, *, span: float, length: int
) -> ChunkScaling:
    """Write the scaling at every reading of a chunk.

    Parameters
    ----------
    g : Builder
        The graph under construction.
    readings, mark : str
        Readings, zero where missing, and 1 where they are there, else 0, `(B, C, L)`.
    before : ChunkScaling
        The state before the chunk, `(B, C, 1)` each.
    span : float
        Span of the weights in readings.
    length : int
        L.
    """
    most = memory(span)
    count = g("MatMul", mark, np.triu(np.ones((length, length + 1)), 1))  # from 0, (B, C, L + 1)
    last = _filled(g, g("Concat", before.last, readings, axis=2), count)
    moved = g("Sub", _after(g, last), _until(g, last, length))
    total = g("Add", before.seen, count)
    seen = g("Min", total, np.float32(most))
    forgotten = g("Sub", total, seen)
    share = g("Div", mark, _after(g, seen))
    kept = _kept(g, _until(g, seen, length), _until(g, forgotten, length), most, length)
    innovation = _sum(g, kept, moved, before.deviation, length)
    deviation = g("Sub", innovation, g("Mul", share, innovation))
    squares = g("Mul", g("Mul", share, innovation), innovation)
    spread = _sum(g, kept, squares, before.variance, length)
    variance = g("Sub", spread, g("Mul", share, spread))
    return ChunkScaling(_after(g, seen), _after(g, last), deviation, variance)


def _filled(g: Builder, readings: str, count: str) -> str:
    """Write `(B, C, L + 1)` with each gap filled by the last reading that came: of equal count."""
    same = g("Equal", _column(g, count), _row(g, count))
    filled = g("MatMul", g("Where", same, ONE, ZERO), _column(g, readings))
    return g("Squeeze", filled, np.array([3]))


def _kept(g: Builder, seen: str, forgotten: str, most: int, length: int) -> str:
    """Write B, `(B, C, L, L)`."""
    steps = g("Sub", _column(g, forgotten), _row(g, forgotten))  # whole numbers
    power = g("Mul", steps, np.float32(np.log1p(-1 / most)))
    later = np.triu(np.full((length, length), LATER), 1)
    weights = g("Exp", g("Add", power, later))
    return g("Mul", weights, g("Div", _row(g, seen), _column(g, seen)))


def _sum(g: Builder, kept: str, terms: str, first: str, length: int) -> str:
    """Write the product of B with terms `(B, C, L)`, one more `(B, C, 1)` added to the first."""
    terms = g("Add", terms, g("Mul", first, np.eye(1, length)[0]))
    return g("Squeeze", g("MatMul", kept, _column(g, terms)), np.array([3]))


def _after(g: Builder, values: str) -> str:
    return g.cut(values, axis=2, start=1)


def _until(g: Builder, values: str, length: int) -> str:
    return g.cut(values, axis=2, start=0, stop=length)


def _column(g: Builder, values: str) -> str:
    return g("Unsqueeze", values, np.array([3]))


def _row(g: Builder, values: str) -> str:
    return g("Unsqueeze", values, np.array([2]))
