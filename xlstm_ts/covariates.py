"""Covariates inside the model: what columns beside the readings are turned into.

The columns of X stand in four runs, in this order, any of them empty:

past
    numbers that are known up to now;
known
    numbers that are known a horizon ahead too;
static
    numbers of the series that never change;
cyclic
    numbers that count up to a period and begin again, as the hour of the day does.

Past and known columns ride along with the readings as channels that are seen and not forecast. What
is static or cyclic joins the token as it is now. Known and cyclic columns of the next readings act
on each step of the forecast by the `FuturePath` (`xlstm_ts.future`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlstm_ts.config import XLSTMConfig

# Three waves tell the seven days of a week apart without rest, and are smooth over longer cycles.
HARMONICS = 3
# Spreads from the centre beyond which a number is no reading but a code for a missing one. Its
# square would swamp the variance for thousands of readings, or for ever.
FARTHEST = 1e9


class Encoded(NamedTuple):
    """Covariates as the model sees them.

    `value` and `observed` `(..., past + known)` are standardised numbers, zero where missing, and 1
    where they are there; `now` `(..., static + waves)` is what the token knows of its moment.
    """

    value: Tensor
    observed: Tensor
    now: Tensor


class CovariateEncoder(nn.Module):
    """Turns raw columns into features.

    Parameters
    ----------
    config : XLSTMConfig
        The shape of the model.
    """

    center: Tensor
    spread: Tensor
    waves: Tensor

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        numbers = config.n_past + config.n_known + config.n_static
        self.register_buffer("center", torch.zeros(numbers, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(numbers, dtype=torch.float64))
        turns = [2 * math.pi * (k + 1) / p for p in config.periods for k in range(HARMONICS)]
        waves = torch.tensor(turns, dtype=torch.float64).reshape(len(config.periods), HARMONICS)
        self.register_buffer("waves", waves, persistent=False)
        self.runs = (config.n_past, config.n_known, config.n_static, len(config.periods))

    @torch.no_grad()
    def set_units(self, center: NDArray[np.float64], spread: NDArray[np.float64]) -> None:
        """Set what numbers are standardised by: level and spread of each, `(1, columns)`."""
        # In float32 digits, as the step graph holds it: what is exact there is exact here too.
        self.center.copy_(torch.as_tensor(center[0]).float())
        self.spread.copy_(torch.as_tensor(spread[0]))

    @property
    def units(self) -> tuple[Tensor, Tensor]:
        """Level and spread of the numbers."""
        return self.center, self.spread

    def missing(self, *shape: int) -> Tensor:
        """Return raw columns of which nothing is known, `(*shape, columns)`."""
        return self.center.new_full((*shape, sum(self.runs)), torch.nan)

    def encode(self, columns: Tensor, *, dtype: torch.dtype) -> Encoded:
        """Return raw columns `(..., columns)` as the model sees them; NaN is missing."""
        *_, cyclic = columns.split(self.runs, -1)
        numbers = columns[..., : len(self.center)]
        value, observed = standardise(numbers, self.center, self.spread, dtype=dtype)
        per_reading = self.runs[0] + self.runs[1]
        now = torch.cat((value[..., per_reading:], self._waves(cyclic, dtype=dtype)), -1)
        return Encoded(value[..., :per_reading], observed[..., :per_reading], now)

    def ahead(self, columns: Tensor) -> Tensor:
        """Return the known and cyclic columns out of all, `(..., known + cyclic)`."""
        _, known, _, cyclic = columns.split(self.runs, -1)
        return torch.cat((known, cyclic), -1)

    def encode_ahead(self, columns: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return features of known and cyclic columns: numbers, where they are there, waves."""
        n_past, n_known, _, _ = self.runs
        known, cyclic = columns.split((n_known, len(self.waves)), -1)
        units = (part[n_past : n_past + n_known] for part in (self.center, self.spread))
        value, observed = standardise(known, *units, dtype=dtype)
        return torch.cat((value, observed, self._waves(cyclic, dtype=dtype)), -1)

    def _waves(self, cyclic: Tensor, *, dtype: torch.dtype) -> Tensor:
        angle = (cyclic.unsqueeze(-1) * self.waves).flatten(-2)
        # Where the time is not known there is no wave.
        return torch.cat((angle.sin(), angle.cos()), -1).nan_to_num(nan=0.0).to(dtype)


def features_now(config: XLSTMConfig) -> int:
    """Return how many features of its moment a token has."""
    return config.n_static + 2 * HARMONICS * len(config.periods)


def features_ahead(config: XLSTMConfig) -> int:
    """Return how many features each of the next readings has."""
    return 2 * config.n_known + 2 * HARMONICS * len(config.periods)


def standardise(
    numbers: Tensor, center: Tensor, spread: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return numbers in spreads from their centre, zero where missing, and marks of the others."""
    # Numbers may come in float64: the level goes off before their digits do.
    standard = ((numbers - center) / spread).to(dtype)
    missing = ~(standard.abs() < FARTHEST)
    return torch.where(missing, 0.0, standard), (~missing).to(dtype)
