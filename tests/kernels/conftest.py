"""Uninitialised memory holds NaN in every test of the kernels, so that none is read unnoticed."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    # Only the filling is wanted: on CUDA, cumsum and products have no deterministic algorithm.
    request.node.add_marker(pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning"))
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.set_deterministic_debug_mode(before)
