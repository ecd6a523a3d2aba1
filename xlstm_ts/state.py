"""The state that a model carries from reading to reading: a named, ordered, flat list."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

State = tuple[Tensor, ...]


class StateField(NamedTuple):
    """One array of the state.

    Parameters
    ----------
    name : str
        Its name, also in the exported graph.
    shape : tuple of int
        Its shape without the batch axis, which comes first.
    initial : float
        The value of every element before the first reading.
    """

    name: str
    shape: tuple[int, ...]
    initial: float = 0.0


def initial_state(
    fields: tuple[StateField, ...], batch: int, *, dtype: torch.dtype, device: torch.device
) -> State:
    """Return the state of `batch` streams that have seen nothing."""
    return tuple(
        torch.full((batch, *field.shape), field.initial, dtype=dtype, device=device)
        for field in fields
    )
