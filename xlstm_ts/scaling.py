"""Causal scaling: the exponentially weighted mean and scale of the readings so far.

The weights of a mean with span s decay by rho = 1 - 2 / (s + 1) from one *observed* reading to the
next, and are divided by their sum, so that the first readings are not pulled towards zero.
`causal_scaling` has every position at once in closed form; `scaling_step` is the same, one reading
at a time, in the update of West (1979, "Updating mean and variance estimates: an improved
method"), which does not cancel in float32. A missing reading leaves the state alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Added to the variance, in standardised units: a flat sensor must not blow up its own noise.
VARIANCE_FLOOR = 1e-2
# The largest power of 1 / rho that the closed form may reach in float64.
LARGEST_EXPONENT = 230.0
TINY_WEIGHT = 1e-30


class Scaling(NamedTuple):
    """Weight, mean and variance of the readings so far, each `(..., channels)`."""

    weight: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def scale(self) -> Tensor:
        """Standard deviation with the floor added, what readings are divided by."""
        return (self.variance + VARIANCE_FLOOR).sqrt()


def decay(span: float) -> float:
    """Return the factor rho by which one more reading shrinks the weight of those before it."""
    return 1.0 - 2.0 / (span + 1.0)


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
    rho = decay(span)
    weight = torch.where(observed > 0, rho * state.weight + (1 - rho), state.weight)
    gain = observed * (1 - rho) / weight.clamp_min(TINY_WEIGHT)
    innovation = x - state.mean
    mean = state.mean + gain * innovation
    variance = (1 - gain) * (state.variance + gain * innovation.square())
    return Scaling(weight, mean, variance)


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
    rho = decay(span)
    # Powers of 1 / rho grow with the number of readings, so a very long sequence goes in pieces.
    longest = max(1, int(LARGEST_EXPONENT / -math.log(rho)))
    current = Scaling(*(part.double() for part in state))
    pieces = []
    for piece, seen in zip(x.split(longest, 1), observed.split(longest, 1), strict=True):
        pieces.append(_scaling_piece(piece.double(), seen.double(), current, rho))
        current = Scaling(*(part[:, -1] for part in pieces[-1]))
    return Scaling(*(torch.cat(parts, 1).to(x.dtype) for parts in zip(*pieces, strict=True)))


def _scaling_piece(x: Tensor, observed: Tensor, state: Scaling, rho: float) -> Scaling:
    """Return the closed form over one piece: sums of decayed weights, values and squares."""
    weight, mean, variance = (part.unsqueeze(1) for part in state)
    # Sums are taken about a reading of the past: about zero, the square of a level of thousands
    # would swamp the variance.
    first = x.gather(1, observed.argmax(1, keepdim=True))
    centre = torch.where(weight > 0, mean, first).detach()
    count = observed.cumsum(1)
    grown = observed * (1 - rho) * rho**-count
    shrink = rho**count
    weights = shrink * (weight + grown.cumsum(1))
    offset = mean - centre
    sums = shrink * (weight * offset + (grown * (x - centre)).cumsum(1))
    squares = shrink * (
        weight * (variance + offset.square()) + (grown * (x - centre).square()).cumsum(1)
    )
    safe = weights.clamp_min(TINY_WEIGHT)
    moved = sums / safe
    seen = weights > 0
    return Scaling(
        weights,
        torch.where(seen, centre + moved, mean),
        torch.where(seen, (squares / safe - moved.square()).clamp_min(0), variance),
    )
