"""The way of raw readings into the model, and of its forecasts back into their units."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_ts.config import OFFSETS, Transform
from xlstm_ts.covariates import standardise


class ReadingUnits(NamedTuple):
    """What readings are put in: their logarithm or not, less a center, by a spread.

    `center` and `spread` are `(C,)`, or `(B, C)` with those of each series.
    """

    transform: Transform
    center: Tensor
    spread: Tensor

    def fold(self, readings: Tensor, *, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Standardise `(B, T, C)` and split it into groups: values and marks `(S, T, G)`."""
        if self.transform is not None:
            readings = (readings + OFFSETS[self.transform]).log()
        center, spread = (part.unsqueeze(-2) for part in (self.center, self.spread))
        parts = standardise(readings, center, spread, dtype=dtype)
        folded = (part.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1) for part in parts)
        value, observed = folded
        return value, observed

    def unfold(self, forecast: Tensor, *, like: Tensor) -> Tensor:
        """Join groups `(S, N, H, G, Q)` to channels `(B, N, H, C, Q)`, as readings were."""
        # Not len(): a traced batch would become a constant.
        joined = forecast.unflatten(0, (like.shape[0], -1)).movedim(1, 3).flatten(3, 4)
        center, spread = (part[..., None, None, :, None] for part in (self.center, self.spread))
        raw = joined * spread + center
        if self.transform is not None:
            raw = raw.exp() - OFFSETS[self.transform]
        return raw.to(like.dtype)
