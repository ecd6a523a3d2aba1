"""Graphs to hold the step graph against, and how any graph is run without a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
LAYERS = 2


def bound(path: Path) -> Callable[[int], None]:
    """Return a run of a graph whose arrays are bound once, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_reuse = False  # as in a stream
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    arrays: list[NDArray[np.float32]] = []  # onnxruntime works in their memory

    def value(described: ort.NodeArg) -> ort.OrtValue:
        shape = [size if isinstance(size, int) else 1 for size in described.shape]
        arrays.append(np.full(shape, 0.1, np.float32))
        return ort.OrtValue.ortvalue_from_numpy(arrays[-1])

    for described in session.get_inputs():
        binding.bind_ortvalue_input(described.name, value(described))
    for described in session.get_outputs():
        binding.bind_ortvalue_output(described.name, value(described))

    def run(_: int, *, kept: list[NDArray[np.float32]] = arrays) -> None:
        session.run_with_iobinding(binding)

    return run


def write_lstm(path: Path, *, width: int, outputs: int) -> None:
    """Write one step of two layers of LSTM, one node each, and a linear head."""
    rng = np.random.default_rng(0)
    constants: list[onnx.TensorProto] = []

    def constant(array: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(array, f"c{len(constants)}"))
        return constants[-1].name

    def weight(*shape: int) -> str:
        return constant(rng.uniform(-0.1, 0.1, shape).astype(np.float32))

    sequence = constant(np.array([1, 1, -1]))
    nodes = [helper.make_node("Reshape", ["reading", sequence], ["x0"])]
    inputs, results = [("reading", [1, 1])], [("forecast", [1, outputs])]
    for j in range(LAYERS):
        state, after = [f"h{j}", f"c_{j}"], [f"h{j}_next", f"c_{j}_next"]
        weights = (weight(1, 4 * width, width if j else 1), weight(1, 4 * width, width))
        bias = weight(1, 8 * width)
        nodes.append(
            helper.make_node(
                "LSTM", [f"x{j}", *weights, bias, "", *state], ["", *after], hidden_size=width
            )
        )
        # The only time is the last one: h is the sequence of the next layer.
        nodes.append(helper.make_node("Reshape", [after[0], sequence], [f"x{j + 1}"]))
        inputs += [(name, [1, 1, width]) for name in state]
        results += [(name, [1, 1, width]) for name in after]
    flat = constant(np.array([1, -1]))
    nodes.append(helper.make_node("Reshape", [f"x{LAYERS}", flat], ["last"]))
    head = ["last", weight(width, outputs), weight(outputs)]
    nodes.append(helper.make_node("Gemm", head, ["forecast"]))
    described = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
        for values in (inputs, results)
    )
    graph = helper.make_graph(nodes, "lstm", *described, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
