"""In which dtype the cells compute: float32 at least, whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

# Of the matrix products of the GPU kernels; sums and memories are float32 in all of them.
Precision = Literal["fp32", "tf32", "bf16"]

# What torch calls them, of its own products in float32.
_NAMES: dict[str, Precision] = {"highest": "fp32", "high": "tf32", "medium": "bf16"}


# Dynamo cannot trace a question that is answered in words.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def matmul_precision() -> Precision:
    """Return what `torch.set_float32_matmul_precision` asks for, once for a compiled graph."""
    return _NAMES[torch.get_float32_matmul_precision()]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 if any of the tensors has it, else float32."""
    return reduce(torch.promote_types, (x.dtype for x in tensors), torch.float32)


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off on the device of `x`; a backward pass may meet it as well."""
    device = x.device.type
    # Dynamo cannot trace the first question before torch 2.12, and compiles for no other devices.
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    if known and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
