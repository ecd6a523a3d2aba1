"""Uninitialised memory holds NaN in every test of the kernels, so that none is read unnoticed."""

import os
from collections.abc import Iterator

import pytest
import torch

# Triton reads this when a kernel is decorated, hence before any test imports one.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)
