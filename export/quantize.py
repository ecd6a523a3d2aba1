"""Smaller files: the large matrices of a step graph stored as half floats or as bytes.

What is rounded is what is stored. The graph turns it back to float32 in nodes that depend on no
input, so a runtime computes them once, when it loads the file, and each step is what it was. This
is the one place where a graph of ours has a `Cast`. Biases, units of channels and the state keep
all their digits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xlstm_ts.exceptions import ExportError
from xlstm_ts.export.contract import METADATA_KEY, Contract
from xlstm_ts.export.parity import Parity, parity_errors
from xlstm_ts.model import XLSTM

WeightType = Literal["float32", "float16", "int8"]

# Of a channel's scale; docs/decisions.md has what was measured.
LIMITS = {"float16": 0.01, "int8": 0.05}
# Elements from which on it pays to round a matrix.
SMALLEST = 256
LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_BYTE = 127


def check_weights(weights: str) -> None:
    """Refuse what weights cannot be stored as."""
    if weights not in get_args(WeightType):
        allowed = ", ".join(map(repr, get_args(WeightType)))
        raise ValueError(f"`weights` must be one of {allowed}, got {weights!r}.")


def write_rounded(
    graph: onnx.ModelProto,
    path: Path,
    *,
    model: XLSTM,
    weights: WeightType,
    readings: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> Parity:
    """Write a graph with rounded weights, and into it what that costs.

    Parameters
    ----------
    graph : onnx.ModelProto
        The step graph in float32; it is left as it is.
    path : Path
        The file.
    model : XLSTM
        The model that the graph was built from.
    weights : {"float16", "int8"}
        How to store the matrices.
    readings, columns : ndarray of float64, shapes (T, C) and (T, K)
        Real readings and covariates, as for `check_parity`.

    Returns
    -------
    Parity
        The worst errors of the rounded graph beside the model in float64, and `weights_error`.

    Raises
    ------
    ExportError
        Where the root mean square, over random or over real readings, of the largest error at a
        reading is above 1 % of a channel's scale in float16, or 5 % in int8.
    """
    rounded = round_weights(graph, weights=weights)
    onnx.save(rounded, path)
    errors = parity_errors(model, path, readings=readings, columns=columns)
    typical = float(np.sqrt(np.square(errors).mean(1)).max())
    if not typical <= LIMITS[weights]:  # true of NaN
        raise ExportError(
            f"Weights in {weights} move forecasts by {typical:.2%} of a channel's scale (root mean "
            f"square over {errors.shape[1]} readings), {LIMITS[weights]:.0%} is allowed. Use "
            f"weights={'float16' if weights == 'int8' else 'float32'!r}. No file was written."
        )
    _tell(rounded, weights=weights, weights_error=typical)
    onnx.save(rounded, path)
    random, real = (float(worst) for worst in errors.max(1))
    return Parity(random=random, real=real, steps=errors.shape[1], weights_error=typical)


def round_weights(graph: onnx.ModelProto, *, weights: WeightType) -> onnx.ModelProto:
    """Return a copy of a step graph whose large matrices are stored in fewer bits.

    Parameters
    ----------
    graph : onnx.ModelProto
        The step graph; its matrices are the second inputs of its products, `(in, out)`.
    weights : {"float16", "int8"}
        Half floats, or bytes with one float32 factor for each column.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(graph)
    products = (node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm"))
    matrices = {node.input[1] for node in products}
    stored: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for tensor in graph.graph.initializer:
        matrix = numpy_helper.to_array(tensor)
        rows = _rows_to_round(matrix) if tensor.name in matrices else 0
        if not rows or matrix[:rows].size < SMALLEST:
            stored.append(tensor)
            continue
        parts, restored = _rounded(tensor.name, matrix, rows=rows, weights=weights)
        stored += parts
        nodes += restored
    nodes += graph.graph.node
    del rounded.graph.initializer[:], rounded.graph.node[:]
    rounded.graph.initializer.extend(stored)
    rounded.graph.node.extend(nodes)
    onnx.checker.check_model(rounded, full_check=True)
    return rounded


def _rows_to_round(matrix: NDArray[np.float32]) -> int:
    """Return how many rows come before the first that half floats cannot hold.

    The last row of a cell's matrix shuts the gates for an absent token with numbers near the
    largest of float32: as a half float infinity, times a mark of zero, and the state is NaN; as a
    byte the one number of its column that is not rounded to zero.
    """
    far = (np.abs(matrix) > LARGEST_HALF).any(1)
    return int(far.argmax()) if far.any() else len(matrix)


def _rounded(
    name: str, matrix: NDArray[np.float32], *, rows: int, weights: WeightType
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Return what to store of a matrix, and the nodes that give it back under its name."""
    kept, body = matrix[rows:], f"{name}_body" if rows < len(matrix) else name
    stored, nodes = _of_type(name, body, matrix[:rows], weights=weights)
    if len(kept):
        stored.append(numpy_helper.from_array(kept, f"{name}_kept"))
        nodes.append(helper.make_node("Concat", [body, f"{name}_kept"], [name], axis=0))
    return stored, nodes


def _of_type(
    name: str, result: str, matrix: NDArray[np.float32], *, weights: WeightType
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    source = f"{name}_{weights}"
    if weights == "float16":
        halves = numpy_helper.from_array(matrix.astype(np.float16), source)
        return [halves], [helper.make_node("Cast", [source], [result], to=TensorProto.FLOAT)]
    largest = np.abs(matrix).max(0)
    factor = np.where(largest > 0, largest / LARGEST_BYTE, 1).astype(np.float32)
    stored = [
        numpy_helper.from_array(np.rint(matrix / factor).astype(np.int8), source),
        numpy_helper.from_array(factor, f"{name}_factor"),
    ]
    whole = f"{name}_whole"
    return stored, [
        helper.make_node("Cast", [source], [whole], to=TensorProto.FLOAT),
        helper.make_node("Mul", [whole, f"{name}_factor"], [result]),
    ]


def _tell(graph: onnx.ModelProto, *, weights: WeightType, weights_error: float) -> None:
    """Write into the contract of a graph how its weights are stored."""
    (entry,) = (entry for entry in graph.metadata_props if entry.key == METADATA_KEY)
    contract = Contract.from_json(entry.value)
    entry.value = replace(contract, weights=weights, weights_error=weights_error).to_json()
