"""Where an estimator computes, and from which seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state


@contextmanager
def seeded(random_state: int | np.random.RandomState | None) -> Iterator[torch.Generator]:
    """Seed torch, and a generator of windows; what torch draws elsewhere is left alone."""
    seeds = check_random_state(random_state).randint(2**31 - 1, size=2).tolist()
    with torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        yield torch.Generator().manual_seed(seeds[1])


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" takes CUDA where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
