"""Where an estimator computes, and from which seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils import check_random_state

from xlstm_ts.exceptions import BackendError

if TYPE_CHECKING:
    from xlstm_ts.distribution import Processes


@contextmanager
def seeded(
    random_state: int | np.random.RandomState | None, *, processes: Processes | None = None
) -> Iterator[torch.Generator]:
    """Seed torch, and a generator of windows; what torch draws elsewhere is left alone."""
    seeds = check_random_state(random_state).randint(2**31 - 1, size=2).tolist()
    if processes is not None:
        seeds = processes.first(lambda: seeds)
    # By default torch forks the generators of all devices too, and warns where there are several.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seeds[0])
        yield torch.Generator().manual_seed(seeds[1])


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" takes CUDA where there is one.

    Raises
    ------
    BackendError
        Where CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"`device` is {name!r}, and torch {torch.__version__} finds no CUDA device: take "
            "'auto' or 'cpu', or a torch that was built for the device."
        )
    return device
