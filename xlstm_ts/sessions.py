"""A graph as it comes from its file: the session that runs it and the contract it carries."""

from __future__ import annotations

import os

from xlstm_ts.exceptions import BackendError, StreamError
from xlstm_ts.export.contract import FORECAST, METADATA_KEY, Contract, next_name

try:
    import onnxruntime as ort
except ImportError as err:
    raise BackendError(
        "Streams need onnxruntime: install xlstm-ts[onnx] for CPUs or xlstm-ts[onnx-gpu] for CUDA, "
        "never both, because the two packages overwrite each other's files."
    ) from err

__all__ = ["open_graph", "ort"]


def open_graph(
    path: str | os.PathLike[str], *, threads: int, kind: str
) -> tuple[ort.InferenceSession, Contract]:
    """Load a graph.

    Parameters
    ----------
    path : path-like
        A file that `xlstm_ts.export.onnx.export_onnx` wrote.
    threads : int
        Threads inside one call.
    kind : {"step", "warm-up"}
        Which of the two graphs it is to be.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    StreamError
        Where it is no graph of this kind and of a version that this library reads.
    """
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no {kind} graph {name!r}.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    try:
        session = ort.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        contract = Contract.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        _check_names(session, contract)
    except Exception as err:  # onnxruntime's errors share no other base
        raise StreamError(f"{name} is not a {kind} graph of xlstm-ts: {err}") from err
    found = "step" if contract.chunk is None else "warm-up"
    if found != kind:
        raise StreamError(
            f"{name} is a {found} graph, not a {kind} graph: "
            "write StreamModel(step_graph, warm_up=warm_up_graph)."
        )
    return session, contract


def _check_names(session: ort.InferenceSession, contract: Contract) -> None:
    """Check that a graph has the inputs and outputs that its contract speaks of."""
    names = [described.name for described in contract.state]
    for values, expected in (
        (session.get_inputs(), [*contract.inputs, *names]),
        (session.get_outputs(), [FORECAST, *map(next_name, names)]),
    ):
        if [value.name for value in values] != expected:
            raise ValueError("its inputs or outputs are not those of its contract")
