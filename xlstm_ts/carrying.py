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


class Carried(NamedTuple):
    """Where the rows of the next batch begin, `(S,)` each, and the state before them.

    `is_fresh` says which begin cold.
    """

    groups: Tensor
    starts: Tensor
    is_fresh: Tensor
    state: State


def begin(
    model: XLSTM, sampler: WindowSampler, *, size: int, generator: torch.Generator
) -> Carried:
    """Return the rows of a first batch: all of them cold, at random places."""
    groups, starts = sampler.places(size, generator=generator)
    return Carried(groups, starts, torch.ones(size, dtype=torch.bool), model.patch_state(size))


def follow(
    rows: Carried,
    left: State,
    *,
    model: XLSTM,
    sampler: WindowSampler,
    generator: torch.Generator,
) -> Carried:
    """Return the rows that come after a batch, which has left the state `left`.

    A row whose series has no whole window more begins anew.
    """
    size = len(rows.starts)
    groups, starts = sampler.places(size, generator=generator)
    again = torch.rand(size, generator=generator) < FRESH
    is_fresh = again | ~sampler.has_next(rows.starts)
    on_device = is_fresh.to(left[0].device)
    state = tuple(
        torch.where(on_device.view(-1, *[1] * (part.ndim - 1)), cold, part.detach())
        for cold, part in zip(model.patch_state(size), left, strict=True)
    )
    return Carried(
        torch.where(is_fresh, groups, rows.groups),
        torch.where(is_fresh, starts, rows.starts + sampler.context_length),
        is_fresh,
        state,
    )
