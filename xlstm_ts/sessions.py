"""Sessions of onnxruntime: a step graph loaded where it was asked for, and bound to our memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import BackendError, BackendWarning

try:
    import onnxruntime as ort
except ImportError as err:
    raise BackendError(
        "Streams need onnxruntime: install xlstm-ts[onnx] for CPUs or xlstm-ts[onnx-gpu] for CUDA, "
        "never both, because the two packages overwrite each other's files."
    ) from err

Array = NDArray[np.float32]
CPU = "CPUExecutionProvider"
# Where a provider keeps what it works on; all others read the memory of the host.
DEVICES = {"CUDAExecutionProvider": "cuda"}


def check_providers(providers: Sequence[str | tuple[str, Any]]) -> None:
    """Refuse what is no list of names."""
    if isinstance(providers, str) or not providers:
        raise ValueError(f"`providers` must be a list such as [{CPU!r}], got {providers!r}.")


def open_session(
    path: str | os.PathLike[str], *, providers: Sequence[str | tuple[str, Any]], threads: int
) -> Any:
    """Load a graph to run one step after the other.

    Parameters
    ----------
    path : path-like
        An ONNX file.
    providers : sequence of str or (str, options)
        Providers of onnxruntime, the most wanted first.
    threads : int
        Threads inside one step.

    Returns
    -------
    onnxruntime.InferenceSession
        A session, on the CPU where no provider that was asked for can be had.

    Warns
    -----
    BackendWarning
        Where the session does not run on the first of `providers`.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    there = [one for one in providers if _name(one) in ort.get_available_providers()]
    session = ort.InferenceSession(os.fspath(path), options, providers=there or [CPU])
    # A build for CUDA lists CUDA where none is; what the session runs on is known only now.
    wanted, used = _name(providers[0]), session.get_providers()[0]
    if used != wanted:
        warnings.warn(
            f"{wanted} was asked for, but the streams run on {used}: onnxruntime has "
            f"{', '.join(ort.get_available_providers())}. CUDA needs xlstm-ts[onnx-gpu] without "
            "xlstm-ts[onnx], a device and its libraries.",
            BackendWarning,
            stacklevel=3,
        )
    return session


def device_of(session: Any) -> str:
    """Return where the provider of a session keeps its memory: "cpu" or "cuda"."""
    return DEVICES.get(session.get_providers()[0], "cpu")


def tensor(array: Array, device: str = "cpu") -> Any:
    """Return a tensor of onnxruntime: on the CPU the memory of `array`, which must stay alive."""
    return ort.OrtValue.ortvalue_from_numpy(array, device, 0)


def bind(session: Any, *, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Bind the graph to read and write these tensors at each run."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _name(provider: str | tuple[str, Any]) -> str:
    return provider if isinstance(provider, str) else provider[0]
