"""Sessions of onnxruntime: a graph loaded where it was asked for, and bound to our memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import BackendError, BackendWarning, StreamError
from xlstm_ts.export.contract import FORECAST, METADATA_KEY, SCORES_KEY, Contract, next_name
from xlstm_ts.streaming.states import forecast_shape

try:
    import onnxruntime as ort
except ImportError as err:
    raise BackendError(
        "Streams need onnxruntime: install xlstm-ts[onnx] for CPUs or xlstm-ts[onnx-gpu] for CUDA, "
        "never both, because the two packages overwrite each other's files."
    ) from err

Array = NDArray[np.float32]
Graph = str | os.PathLike[str] | bytes
CPU = "CPUExecutionProvider"
SAVED = (
    "it looks like what `save` writes; export_onnx or export_detector writes the graph, "
    "or `xlstm-ts export MODEL -o model.onnx`."
)
MOST_ROWS = 100_000  # of a state, a row for each channel or patch
Device = tuple[str, int]
HOST: Device = ("cpu", 0)
# Where states can stay; all other providers are given them from the memory of the host.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
# CUDA's default are products in TensorFloat-32: a forecast on an H200 was off by 1e-3 of itself.
EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}
CUDA_GRAPHS = ("enable_cuda_graph", "trt_cuda_graph_enable")


def check_providers(providers: Sequence[str | tuple[str, Any]]) -> None:
    """Refuse what is no list of names, and options with which states would stand still."""
    if isinstance(providers, str) or not providers:
        raise ValueError(f"`providers` must be a list such as [{CPU!r}], got {providers!r}.")
    for options in (one[1] for one in providers if not isinstance(one, str)):
        for name in CUDA_GRAPHS:
            if str(options.get(name, 0)).lower() not in ("0", "false"):
                raise ValueError(
                    f"`providers` ask for {name!r}, which plays a run again in the memory of the "
                    "first; a state goes from one memory to another: leave it out."
                )


def open_graph(
    path: Graph,
    *,
    providers: Sequence[str | tuple[str, Any]],
    threads: int,
    kind: str,
) -> tuple[Any, Contract]:
    """Load a graph, to run one call after the other, and the contract that it carries.

    Parameters
    ----------
    path : path-like or bytes
        A file that `xlstm_ts.export.onnx.export_onnx` wrote, or what is in it.
    providers : sequence of str or (str, options)
        Providers of onnxruntime, the most wanted first.
    threads : int
        Threads inside one call.
    kind : {"step", "warm-up"}
        Which of the two graphs it is to be.

    Returns
    -------
    tuple of onnxruntime.InferenceSession and Contract
        A session, on the CPU where no provider that was asked for can be had.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    StreamError
        Where it is no graph of this kind and of a version that this library reads.

    Warns
    -----
    BackendWarning
        Where the session does not run on the first of `providers`.
    """
    name = called(path)
    if not isinstance(path, bytes) and not os.path.isfile(path):
        raise FileNotFoundError(f"There is no {kind} graph {name!r}.")
    try:
        given = path if isinstance(path, bytes) else name
        session = _session(given, providers=providers, threads=threads)
        texts = session.get_modelmeta().custom_metadata_map
        if SCORES_KEY in texts:
            raise ValueError(
                "it scores readings by itself, for runtimes in other languages; load the detector "
                "that was written beside it"
            )
        contract = Contract.from_json(texts[METADATA_KEY])
        _check_names(session, contract)
    except Exception as err:  # onnxruntime's errors share no other base
        why = SAVED if not isinstance(path, bytes) and is_zipfile(name) else err
        raise StreamError(f"{name} is not a {kind} graph of xlstm-ts: {why}") from err
    found = "step" if contract.chunk is None else "warm-up"
    if found != kind:
        raise StreamError(
            f"{name} is a {found} graph, not a {kind} graph: "
            "write StreamModel(step_graph, warm_up=warm_up_graph)."
        )
    _warn_of_fallback(session, wanted=_name(providers[0]))
    return session, contract


def open_scores(path: Graph, *, threads: int) -> Any:
    """Load a graph of scores on the CPU; raises as `open_graph`."""
    name = called(path)
    if not isinstance(path, bytes) and not os.path.isfile(path):
        raise FileNotFoundError(f"There is no graph of scores {name!r}.")
    try:
        given = path if isinstance(path, bytes) else name
        session = _session(given, providers=[CPU], threads=threads)
        is_one = SCORES_KEY in session.get_modelmeta().custom_metadata_map
    except Exception as err:  # onnxruntime's errors share no other base
        raise StreamError(f"{name} is not a graph of scores of xlstm-ts: {err}") from err
    if not is_one:
        raise StreamError(
            f"{name} is not a graph of scores: export_detector(..., scores=path) writes one."
        )
    return session


def called(path: Graph) -> str:
    """Return how a message calls a graph."""
    return "What was given" if isinstance(path, bytes) else os.fspath(path)


def _session(
    path: str | bytes, *, providers: Sequence[str | tuple[str, Any]], threads: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Buffers of their own for all that a step computes: a few kilobytes, and 0.97 of the time.
    options.enable_mem_reuse = False
    there = [_exact(one) for one in providers if _name(one) in ort.get_available_providers()]
    return ort.InferenceSession(path, options, providers=there or [(CPU, {})])


def _exact(provider: str | tuple[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a provider with its options, computing in float32 unless they say otherwise."""
    name, options = (provider, {}) if isinstance(provider, str) else provider
    return name, EXACT.get(name, {}) | dict(options)


def _check_names(session: ort.InferenceSession, contract: Contract) -> None:
    """Check that a graph has the inputs and outputs that its contract speaks of."""
    names = [described.name for described in contract.state]
    for values, expected in (
        (session.get_inputs(), [*contract.inputs, *names]),
        (session.get_outputs(), [FORECAST, *map(next_name, names)]),
    ):
        if [value.name for value in values] != expected:
            raise ValueError("its inputs or outputs are not those of its contract")
    # Before memory is taken for them. The first size of a state is that of the batch.
    shapes = {value.name: value.shape[1:] for value in session.get_inputs()}
    told = {one.name: [*one.shape[1:]] for one in contract.state}
    shapes[FORECAST] = session.get_outputs()[0].shape[1:]
    told[FORECAST] = [*forecast_shape(contract)]
    rows = [one.shape[0] for one in contract.state]
    if any(repr(shapes[name]) != repr(shape) for name, shape in told.items()) or not all(
        isinstance(count, int) and 0 < count <= MOST_ROWS for count in rows
    ):
        raise ValueError("its state or its forecast has other shapes than its contract says")


def _warn_of_fallback(session: ort.InferenceSession, *, wanted: str) -> None:
    # A build for CUDA lists CUDA where none is; what a session runs on is known only afterwards.
    used = session.get_providers()[0]
    if used != wanted:
        warnings.warn(
            f"{wanted} was asked for, but the streams run on {used}: onnxruntime has "
            f"{', '.join(ort.get_available_providers())}. CUDA needs xlstm-ts[onnx-gpu] without "
            "xlstm-ts[onnx], a device and its libraries.",
            BackendWarning,
            stacklevel=4,
        )


def is_away(session: Any) -> bool:
    """Return whether what lies on the host is copied when it is bound, and not at each run."""
    return bool(session.get_providers()[0] != CPU)


def device_of(session: Any) -> Device:
    """Return where the states of a session are to lie, such as ("cuda", 0)."""
    provider = session.get_providers()[0]
    if provider not in DEVICES:
        return HOST
    options = session.get_provider_options().get(provider, {})
    return DEVICES[provider], int(options.get("device_id", 0))


def tensor(array: Array, device: Device = HOST) -> Any:
    """Return a tensor of onnxruntime: on the CPU the memory of `array`, which it keeps alive.

    A binding does not keep the tensor.
    """
    return ort.OrtValue.ortvalue_from_numpy(array, *device)


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
