"""A graph under construction: nodes, constants, inputs and outputs of an ONNX model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # read by onnxruntime 1.13 and later

END = int(np.iinfo(np.int64).max)

Constant = NDArray[Any] | np.generic
Floats = type[np.float32] | type[np.float64]


class Builder:
    """Collects the parts of a graph; calling it adds a node.

    Names of values are strings. Wherever a node takes a value it also takes a numpy constant:
    floats are stored as `floats`, integers (shapes, axes) as int64, conditions as bool, each
    distinct one once.

    Parameters
    ----------
    floats : {float32, float64}
        What floats are stored as.

    Examples
    --------
    >>> graph = Builder()
    >>> x = graph.input("x", ("batch", 2))
    >>> graph.output(graph("Mul", x, np.float32(2)), "y", ("batch", 2))
    >>> len(graph.model({}).graph.node)
    1
    """

    def __init__(self, floats: Floats = np.float32) -> None:
        self._floats = floats
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._names: dict[str, str] = {}

    def input(self, name: str, shape: tuple[str | int, ...], floats: Floats | None = None) -> str:
        """Add an input of floats, by default of those of the graph."""
        self._inputs.append(helper.make_tensor_value_info(name, self._type(floats), shape))
        return name

    def output(
        self, value: str, name: str, shape: tuple[str | int, ...], floats: Floats | None = None
    ) -> None:
        """Make a value of floats, by default of those of the graph, an output with a name."""
        self._names[value] = name
        self._outputs.append(helper.make_tensor_value_info(name, self._type(floats), shape))

    def __call__(self, operator: str, *inputs: str | Constant, **attributes: Any) -> str:
        """Add a node with one output; return the name of that."""
        return self._add(operator, inputs, 1, attributes)[0]

    def split(self, value: str, sizes: list[int], *, axis: int) -> list[str]:
        """Split one axis into parts of the given sizes."""
        return self._add("Split", (value, np.array(sizes)), len(sizes), {"axis": axis})

    def cut(self, value: str, *, axis: int, start: int, stop: int = END) -> str:
        """Take one axis from `start` to `stop`, by default its end."""
        bounds = (np.array([bound]) for bound in (start, stop, axis))
        return self("Slice", value, *bounds)

    def cast(self, value: str, floats: Floats) -> str:
        """Turn floats into those of another type."""
        return self("Cast", value, to=self._type(floats))

    def silu(self, x: str) -> str:
        """Multiply by the sigmoid."""
        return self("Mul", x, self("Sigmoid", x))

    def norm(self, x: str, gain: Constant, *, epsilon: float) -> str:
        """Standardise along the last axis, and multiply by a gain."""
        return self("LayerNormalization", x, gain, axis=-1, epsilon=epsilon)

    def model(self, metadata: dict[str, str], *, name: str = "step") -> onnx.ModelProto:
        """Return the finished model, checked, with its metadata."""
        for node in self._nodes:
            for values in (node.input, node.output):
                values[:] = [self._names.get(value, value) for value in values]
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="xlstm-ts",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _type(self, floats: Floats | None) -> int:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(floats or self._floats)))

    def _add(
        self,
        operator: str,
        inputs: tuple[str | Constant, ...],
        outputs: int,
        attributes: dict[str, Any],
    ) -> list[str]:
        number = len(self._nodes)
        names = [f"v{number}" if outputs == 1 else f"v{number}_{j}" for j in range(outputs)]
        values = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, values, names, **attributes))
        return names

    def _constant(self, value: Constant) -> str:
        array = np.asarray(value)
        stored = {"i": np.int64, "b": np.bool_}.get(array.dtype.kind, self._floats)
        array = np.ascontiguousarray(array, stored)
        array = array.reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name
