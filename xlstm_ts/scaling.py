"""Causal scaling: the running mean and scale of the readings so far.

The first N readings weigh alike; from then on each one shrinks the weight of those before it by
rho = 1 - 1 / N, as in an exponentially weighted mean of span 2 N - 1. A new reading thus has the
share 1 / min(n, N), with n a whole number: a weight that approaches its limit by ever smaller
steps would stand still in float32 before it got there. `causal_scaling` has every position at
once in closed form; `scaling_step` is the same, one reading at a time, in the update of West (1979,
"Updating mean and variance estimates: an improved method"), which does not cancel in float32. A
missing reading leaves the state alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Added to the variance, in standardised units: a flat sensor must not blow up its own noise.
VARIANCE_FLOOR = 1e-2
# Memories in one piece of the closed form: what came first then weighs exp(-7), not more.
PIECE, SHORTEST_PIECE = 8, 64


class Scaling(NamedTuple):
    """Number, up to N, mean and variance of the readings so far, each `(..., channels)`."""

    seen: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def scale(self) -> Tensor:
        """Standard deviation with the floor added, what readings are divided by."""
        return (self.variance + VARIANCE_FLOOR).sqrt()


def memory(span: float) -> int:
    """Return N, how many readings the mean remembers."""
    return round((span + 1) / 2)


def scaling_step(x: Tensor, observed: Tensor, state: Scaling, *, span: float) -> Scaling:
    """Take one reading into the mean and the variance.

    Parameters
    ----------
    x : Tensor
        Readings `(S, C)`; any finite value where missing.
    observed : Tensor
        1 where the reading is there, else 0, `(S, C)`, same dtype as `x`.
    state : Scaling
        The state before this reading.
    span : float
        Span of the weights in readings.

    Returns
    -------
    Scaling
        The state that is in force at this reading.
    """
    seen = (state.seen + observed).clamp_max(memory(span))
    share = observed / seen.clamp_min(1)
    innovation = x - state.mean
    mean = state.mean + share * innovation
    variance = (1 - share) * (state.variance + share * innovation.square())
    return Scaling(seen, mean, variance)


def causal_scaling(x: Tensor, observed: Tensor, state: Scaling, *, span: float) -> Scaling:
    """Return the scaling in force at every position of a sequence.

    Parameters
    ----------
    x : Tensor
        Readings `(S, T, C)`; any finite value where missing.
    observed : Tensor
        1 where the reading is there, else 0, `(S, T, C)`, same dtype as `x`.
    state : Scaling
        The state before the first reading, each field `(S, C)`.
    span : float
        Span of the weights in readings.

    Returns
    -------
    Scaling
        Fields `(S, T, C)`, of the dtype of `x`; computed in float64.
    """
    length = memory(span)
    # In pieces: each takes its sums about the mean before it, which a far first reading has left
    # by then, and powers of 1 / rho grow with the number of readings.
    longest = max(PIECE * length, SHORTEST_PIECE)
    current = Scaling(*(part.double() for part in state))
    pieces = []
    for piece, marks in zip(x.split(longest, 1), observed.split(longest, 1), strict=True):
        pieces.append(_scaling_piece(piece.double(), marks.double(), current, length))
        current = Scaling(*(part[:, -1] for part in pieces[-1]))
    return Scaling(*(torch.cat(parts, 1).to(x.dtype) for parts in zip(*pieces, strict=True)))


def _scaling_piece(x: Tensor, observed: Tensor, state: Scaling, length: int) -> Scaling:
    """Return the closed form over one piece: sums of weights, values and squares."""
    before, mean, variance = (part.unsqueeze(1) for part in state)
    # Sums are taken about a reading of the past: about zero, the square of a level of thousands
    # would swamp the variance.
    first = x.gather(1, observed.argmax(1, keepdim=True))
    centre = torch.where(before > 0, mean, first).detach()
    count = before + observed.cumsum(1)
    # Rather than shrink the old weights by rho, let the new ones grow.
    forgotten = (1 - 1 / length) ** (count - length).clamp_min(0)
    grown = observed / forgotten
    offset = mean - centre
    deviation = x - centre
    total = count.clamp(1, length) / forgotten
    moved = (before * offset + (grown * deviation).cumsum(1)) / total
    squares = before * (variance + offset.square()) + (grown * deviation.square()).cumsum(1)
    known = count > 0
    return Scaling(
        count.clamp_max(length),
        torch.where(known, centre + moved, mean),
        torch.where(known, (squares / total - moved.square()).clamp_min(0), variance),
    )
