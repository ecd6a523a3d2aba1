"""Stateful training: windows that go on where those before them ended, with the state left there.

A stream has always seen more than a window holds. A model that is trained on fresh windows alone
has never met the states that a stream lives in; here most rows of a batch start from such a state,
cut from its gradient, and some start cold, so that the model forecasts from a window as well.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_ts.model import XLSTM
from xlstm_ts.state import State
from xlstm_ts.windows import WindowSampler

# Share of rows that start anew at each step, at a random place.
FRESH = 0.25
EVERY = slice(None)


class Carried(NamedTuple):
    """Where the rows of the next batch begin, `(S,)` each, and the state before them.

    `is_fresh` says which begin cold. Where many processes train, each knows all rows, and has the
    state of its own.
    """

    groups: Tensor
    starts: Tensor
    is_fresh: Tensor
    state: State

    def of(self, own: slice) -> Carried:
        """Return the own rows, those that the state is of."""
        return Carried(self.groups[own], self.starts[own], self.is_fresh[own], self.state)


def begin(
    model: XLSTM,
    sampler: WindowSampler,
    *,
    size: int,
    generator: torch.Generator,
    own: slice = EVERY,
) -> Carried:
    """Return the rows of a first batch: all of them cold, at random places."""
    groups, starts = sampler.places(size, generator=generator)
    is_fresh = torch.ones(size, dtype=torch.bool)
    return Carried(groups, starts, is_fresh, model.patch_state(len(starts[own])))


def follow(
    rows: Carried,
    left: State,
    *,
    model: XLSTM,
    sampler: WindowSampler,
    generator: torch.Generator,
    own: slice = EVERY,
) -> Carried:
    """Return the rows that come after a batch, whose own rows have left the state `left`.

    A row whose series has no whole window more begins anew.
    """
    size = len(rows.starts)
    groups, starts = sampler.places(size, generator=generator)
    again = torch.rand(size, generator=generator) < FRESH
    is_fresh = again | ~sampler.has_next(rows.starts)
    on_device = is_fresh[own].to(left[0].device)
    state = tuple(
        torch.where(on_device.view(-1, *[1] * (part.ndim - 1)), cold, part.detach())
        for cold, part in zip(model.patch_state(len(on_device)), left, strict=True)
    )
    return Carried(
        torch.where(is_fresh, groups, rows.groups),
        torch.where(is_fresh, starts, rows.starts + sampler.context_length),
        is_fresh,
        state,
    )
