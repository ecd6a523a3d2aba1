"""Which path computes a cell: the Triton kernels or plain torch."""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from xlstm_ts.exceptions import BackendError
from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.tiling import fits

Backend = Literal["auto", "triton", "torch"]

HAS_TRITON = find_spec("triton") is not None
LARGEST_HEAD = 128
# Of AMD's, those with warps of 64 lanes and the registers that the tilings were chosen by.
AMD_PARTS = ("gfx94", "gfx95")
# What a program of the interpreter may take: no less than the largest device.
_UNLIMITED = 1 << 30


def use_triton(backend: Backend, x: Tensor, *, dtype: torch.dtype, head: int) -> bool:
    """Say whether the Triton kernels compute a cell.

    Parameters
    ----------
    backend
        "auto" takes them where they can run and warns once where a GPU has to do without, "triton"
        insists on them, "torch" does without.
    x
        A tensor of the cell, on its device.
    dtype
        What the cell computes in.
    head
        The largest head size.

    Returns
    -------
    bool
        True for Triton.

    Raises
    ------
    BackendError
        If "triton" is asked for where it cannot run; it says why and what to do.
    """
    if backend not in ("auto", "triton", "torch"):
        raise ValueError(f"`backend` must be 'auto', 'triton' or 'torch', got {backend!r}.")
    if backend == "torch" or (backend == "auto" and not x.is_cuda):
        return False
    obstacle = _obstacle(x, dtype=dtype, head=head)
    if obstacle and backend == "triton":
        raise BackendError(f"Backend 'triton' {obstacle}; use backend='auto' or 'torch'.")
    if obstacle and dtype != torch.float64:  # who asks for float64 asks for plain torch
        _warn(f"Plain torch computes on the GPU, which is slower: backend 'triton' {obstacle}.")
    return not obstacle


def is_exporting() -> bool:
    """Say whether `torch.export` takes the code apart.

    Before torch 2.13, Dynamo reads `torch.compiler.is_exporting()` as true, exporting or not.
    """
    return torch.compiler._is_exporting_flag


def slstm_fits(backend: Backend, x: Tensor, *, head: int, precision: Precision) -> bool:
    """Say whether the recurrent weights of an sLSTM fit on the device.

    Where they do not, "auto" takes plain torch and warns once, though not
    within `torch.compile`, and "triton" raises.
    """
    amd = torch.version.hip is not None
    if fits(head, precision, _shared_memory(x), lanes=64 if amd else 32):
        return True
    cure = "use precision='bf16' or smaller heads"
    if backend == "triton":
        raise BackendError(
            f"Backend 'triton' has no room for sLSTM heads of {head} in {precision} on this "
            f"device; {cure}, or backend='torch'."
        )
    _warn(
        f"sLSTM heads of {head} in {precision} do not fit on this device: plain torch computes "
        f"them, which is slower; {cure}."
    )
    return False


def _obstacle(x: Tensor, *, dtype: torch.dtype, head: int) -> str:
    """Return what keeps the kernels from running, or nothing."""
    if not HAS_TRITON:
        return "needs the package triton, which is not installed: pip install triton"
    if not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return f"needs a CUDA device, got tensors on {x.device}"
    if x.is_cuda and torch.version.hip is not None:
        part = torch.cuda.get_device_properties(x.device).gcnArchName.split(":")[0]
        if not part.startswith(AMD_PARTS):
            return f"is tiled for gfx94x and gfx95x of AMD, got {part}"
    if dtype == torch.float64:
        return "computes in float32, got float64"
    if head > LARGEST_HEAD:
        return f"holds heads of at most {LARGEST_HEAD}, got {head}: take more and smaller heads"
    return ""


def _shared_memory(x: Tensor) -> int:
    return _device_memory(x.device) if x.is_cuda else _UNLIMITED


def _device_memory(device: torch.device) -> int:
    """Return what a program may take, from torch: `torch.compile` knows that as a constant."""
    found = torch.cuda.get_device_properties(device)
    amd = torch.version.hip is not None
    return int(found.shared_memory_per_block if amd else found.shared_memory_per_block_optin)  # type: ignore[attr-defined]


def _warn(text: str) -> None:
    if not torch.compiler.is_compiling():  # a warning would break the graph
        _warn_once(text)


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
