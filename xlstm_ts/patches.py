"""The patch at each position: the last readings of a sequence, in the units of their token."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from xlstm_ts.scaling import Scaling


class Recent(NamedTuple):
    """The last readings at each position, `(S, N, buffer_length, G + X)`, zero where missing."""

    value: Tensor
    observed: Tensor


def windows(value: Tensor, observed: Tensor, length: int, *, stride: int) -> Recent:
    """Return windows of sequences `(S, T, G + X)`, one every `stride` readings."""
    parts = (part.unfold(1, length, stride).transpose(2, 3) for part in (value, observed))
    return Recent(*parts)


def scaled(value: Tensor, observed: Tensor, scaling: Scaling) -> Tensor:
    """Put readings `(S, N, L, G)` into the units of their token, a gap at its mean.

    Columns beside them are in units already.
    """
    beside = (0, value.shape[3] - scaling.mean.shape[2])
    mean, scale = (
        F.pad(part, beside, value=neutral).unsqueeze(2)
        for part, neutral in ((scaling.mean, 0), (scaling.scale, 1))
    )
    return observed * (value - mean) / scale
