"""The step graph, built node by node from the weights of a model.

The graph is `XLSTM.step` in plain operators of opset 17. Letters of shapes as there: B batch,
G groups of channels, C channels of a group, P readings in a patch, R in the buffer, E width of
the stream, H heads, D units of a head, K taps of a convolution, Q quantile levels. Everything
keeps its group axis, so that nothing has to be folded into the batch and back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from torch import Tensor, nn

from xlstm_ts.blocks import MLSTMBlock, SLSTMBlock
from xlstm_ts.cells import CausalConv
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.contract import BATCH, FORECAST, METADATA_KEY, READING, Contract, next_name
from xlstm_ts.model import XLSTM
from xlstm_ts.scaling import TINY_WEIGHT, VARIANCE_FLOOR, decay

# What stands for minus infinity: finite, and far below the log-scale of an empty memory.
NEVER = -3e38
LARGEST_LOG = 80.0


def build_step_graph(model: XLSTM, contract: Contract) -> onnx.ModelProto:
    """Build the graph of `XLSTM.step`.

    Parameters
    ----------
    model : XLSTM
        The trained model, on any device.
    contract : Contract
        The names and metadata that the graph is to carry.

    Returns
    -------
    onnx.ModelProto
        A checked model of opset 17, IR version 8, with a dynamic batch.
    """
    graph = Builder()
    config = model.config
    reading = graph.input(READING, (BATCH, config.n_channels))
    state = {array.name: graph.input(array.name, (BATCH, *array.shape)) for array in contract.state}
    step = _StepGraph(graph, model, state)
    forecast = step.build(reading)
    shape = (BATCH, config.horizon, config.n_channels, len(config.quantiles))
    graph.output(forecast, FORECAST, shape)
    for array in contract.state:
        graph.output(step.new[array.name], next_name(array.name), (BATCH, *array.shape))
    return graph.model({METADATA_KEY: contract.to_json()})


@dataclass(frozen=True)
class _Scaling:
    """Names of the mean and the scale in force, `(B, G, C)`."""

    mean: str
    scale: str


class _StepGraph:
    """Writes the nodes of one model; `new` collects the state after the reading, by name."""

    def __init__(self, graph: Builder, model: XLSTM, state: dict[str, str]) -> None:
        self.graph, self.model, self.config = graph, model, model.config
        self.state, self.new = state, dict[str, str]()

    def build(self, reading: str) -> str:
        """Write the whole step; return the name of the forecast `(B, horizon, channels, Q)`."""
        g = self.graph
        value, observed = self._standardise(reading)
        scaling = self._scale(value, observed)
        values, marks = self._push("value", value), self._push("observed", observed)
        scaled = self._scaled(values, marks, scaling)
        x, mask = self._embed(scaled, marks)
        for j, block in enumerate(self.model.blocks):
            if isinstance(block, MLSTMBlock):
                x = self._mlstm_block(f"block{j}", block, x, mask)
            elif isinstance(block, SLSTMBlock):
                x = self._slstm_block(f"block{j}", block, x, mask)
        forecast = self._head(x)
        if self.model.linear_path is not None:
            path = self._linear_path(scaled, self.model.linear_path)
            forecast = g("Add", forecast, path)
        return self._unscale(forecast, scaling)

    def _standardise(self, reading: str) -> tuple[str, str]:
        g, config = self.graph, self.config
        shape = (config.groups, config.group_channels)
        raw = g("Reshape", reading, np.array([-1, *shape]))
        center, spread = (
            _numpy(part).reshape(shape) for part in (self.model.center, self.model.spread)
        )
        missing = g("IsNaN", raw)
        value = g("Div", g("Sub", raw, center), spread)
        zero, one = np.float32(0), np.float32(1)
        return g("Where", missing, zero, value), g("Where", missing, zero, one)

    def _scale(self, value: str, observed: str) -> _Scaling:
        """Write `scaling_step`."""
        g, rho = self.graph, decay(self.config.scaling_span)
        old = self.state
        fresh = np.float32(1 - rho)
        # For a reading that is not there the weight neither decays nor grows.
        kept = g("Sub", np.float32(1), g("Mul", observed, fresh))
        weight = g("Add", g("Mul", old["scaling_weight"], kept), g("Mul", observed, fresh))
        share = g("Div", g("Mul", observed, fresh), g("Max", weight, np.float32(TINY_WEIGHT)))
        innovation = g("Sub", value, old["scaling_mean"])
        moved = g("Mul", share, innovation)
        mean = g("Add", old["scaling_mean"], moved)
        grown = g("Add", old["scaling_variance"], g("Mul", moved, innovation))
        variance = g("Mul", g("Sub", np.float32(1), share), grown)
        self.new |= {"scaling_weight": weight, "scaling_mean": mean, "scaling_variance": variance}
        return _Scaling(mean, g("Sqrt", g("Add", variance, np.float32(VARIANCE_FLOOR))))

    def _push(self, name: str, newest: str) -> str:
        """Move the buffer `(B, G, R, C)` on by one reading."""
        g, buffer = self.graph, f"buffer_{name}"
        new = g("Unsqueeze", newest, np.array([2]))
        if self.config.buffer_length > 1:
            new = g("Concat", g.cut(self.state[buffer], axis=2, start=1), new, axis=2)
        self.new[buffer] = new
        return new

    def _scaled(self, values: str, marks: str, scaling: _Scaling) -> str:
        g, axis = self.graph, np.array([2])
        centred = g("Sub", values, g("Unsqueeze", scaling.mean, axis))
        return g("Div", g("Mul", marks, centred), g("Unsqueeze", scaling.scale, axis))

    def _last(self, buffer: str, length: int) -> str:
        if length == self.config.buffer_length:
            return buffer
        return self.graph.cut(buffer, axis=2, start=-length)

    def _embed(self, scaled: str, marks: str) -> tuple[str, str]:
        """Write the token `(B, G, E)` and its mask `(B, G, 1)`, 1 where it holds a reading."""
        g, flat = self.graph, np.array([0, 0, -1])
        patch = self.config.patch_length
        marks = g("Reshape", self._last(marks, patch), flat)
        features = g(
            "Concat",
            g("Reshape", self._last(scaled, patch), flat),
            g("Sub", np.float32(1), marks),
            axis=2,
        )
        return self._linear(features, self.model.embed), g("ReduceMax", marks, axes=[2], keepdims=1)

    def _linear(self, x: str, layer: nn.Linear) -> str:
        product = self.graph("MatMul", x, _numpy(layer.weight).T)
        return product if layer.bias is None else self.graph("Add", product, _numpy(layer.bias))

    def _norm(self, x: str, layer: nn.LayerNorm) -> str:
        return self.graph("LayerNormalization", x, _numpy(layer.weight), axis=-1, epsilon=layer.eps)

    def _oldest(self, name: str) -> str:
        """Take the state that is one patch old from a queue `(B, G, P, ...)`."""
        return self.graph("Gather", self.state[name], np.array(0), axis=2)

    def _enqueue(self, name: str, newest: str) -> None:
        g = self.graph
        new = g("Unsqueeze", newest, np.array([2]))
        if self.config.patch_length > 1:
            new = g("Concat", g.cut(self.state[name], axis=2, start=1), new, axis=2)
        self.new[name] = new

    def _conv(self, name: str, conv: CausalConv, x: str, mask: str) -> str:
        g = self.graph
        token = g("Unsqueeze", g("Mul", x, mask), np.array([2]))
        past = g("Concat", self._oldest(f"{name}_conv"), token, axis=2)
        self._enqueue(f"{name}_conv", g.cut(past, axis=2, start=1))
        taps = g("ReduceSum", g("Mul", past, _numpy(conv.weight)), np.array([2]), keepdims=0)
        return self._silu(g("Add", taps, _numpy(conv.bias)))

    def _silu(self, x: str) -> str:
        return self.graph("Mul", x, self.graph("Sigmoid", x))

    def _decays(self, name: str, i: str, minus_f: str, mask: str) -> tuple[str, str, str]:
        """Write the stabilised gates f' and i' and the new log-scale m.

        log sigmoid(f) is -Softplus(-f): Log(Sigmoid(f)) loses the forget gates near one.
        """
        g = self.graph
        present = g("Greater", mask, np.float32(0))
        i = g("Where", present, i, np.float32(NEVER))
        lost = g("Where", present, g("Softplus", minus_f), np.float32(0))
        kept = g("Sub", self._oldest(f"{name}_m"), lost)
        m = g("Max", kept, i)
        self._enqueue(f"{name}_m", m)
        return g("Exp", g("Sub", kept, m)), g("Exp", g("Sub", i, m)), m

    def _mlstm_block(self, name: str, block: MLSTMBlock, x: str, mask: str) -> str:
        g, cell = self.graph, block.cell
        heads, dim = cell.heads, cell.dim
        inner, gate = g.split(self._linear(self._norm(x, block.norm), block.up), 2)
        mixed = self._conv(name, cell.conv, inner, mask)
        query, key = g.split(self._linear(mixed, cell.query_key), 2)
        value = self._linear(inner, cell.value)
        sign = np.repeat(np.array([1, -1], np.float32), heads)
        gates = g(
            "MatMul", g("Concat", query, key, value, axis=2), _numpy(cell.gates.weight).T * sign
        )
        i, minus_f = g.split(g("Add", gates, _numpy(cell.gates.bias) * sign), 2)
        forget, write, m = self._decays(name, i, minus_f, mask)
        query = g("Mul", query, np.float32(dim**-0.5))
        q, k, v = (g("Reshape", part, np.array([0, 0, heads, dim])) for part in (query, key, value))
        last = np.array([3])
        forget, write = (g("Unsqueeze", part, last) for part in (forget, write))
        key = g("Mul", write, k)
        n = g("Add", g("Mul", forget, self._oldest(f"{name}_n")), key)
        column, row = g("Unsqueeze", key, np.array([4])), g("Unsqueeze", v, last)
        kept = g("Mul", g("Unsqueeze", forget, last), self._oldest(f"{name}_c"))
        c = g("Add", kept, g("Mul", column, row))
        self._enqueue(f"{name}_c", c)
        self._enqueue(f"{name}_n", n)
        read = g("Squeeze", g("MatMul", g("Unsqueeze", q, last), c), last)
        match = g("ReduceSum", g("Mul", q, n), last, keepdims=1)
        # An empty memory has no scale yet: its floor is as good as infinite, but stays a number.
        floor = g("Exp", g("Min", g("Neg", g("Unsqueeze", m, last)), np.float32(LARGEST_LOG)))
        h = self._head_norm(g("Div", read, g("Max", g("Abs", match), floor)), cell.norm.weight, dim)
        return g("Add", x, self._linear(g("Mul", h, g("Sigmoid", gate)), block.down))

    def _slstm_block(self, name: str, block: SLSTMBlock, x: str, mask: str) -> str:
        g, cell = self.graph, block.cell
        heads, dim = cell.heads, cell.dim
        normed = self._norm(x, block.norm)
        mixed = self._conv(name, cell.conv, normed, mask)
        flat, units = np.array([0, 0, -1]), np.array([0, 0, 4 * heads, dim])
        before = self._oldest(f"{name}_h")
        joined = g("Concat", mixed, normed, g("Reshape", before, flat), axis=2)
        weight, bias = _slstm_weights(block)
        gates = g("Reshape", g("Add", g("MatMul", joined, weight), bias), units)
        i, minus_f, z, o = g.split(gates, 4)
        forget, write, _ = self._decays(name, i, minus_f, g("Unsqueeze", mask, np.array([3])))
        n = g("Add", g("Mul", forget, self._oldest(f"{name}_n")), write)
        kept = g("Mul", forget, self._oldest(f"{name}_c"))
        c = g("Add", kept, g("Mul", write, g("Tanh", z)))
        h = g("Mul", g("Sigmoid", o), g("Div", c, g("Max", n, np.float32(TINY_WEIGHT))))
        present = g("Greater", g("Unsqueeze", mask, np.array([3])), np.float32(0))
        h = g("Where", present, h, before)
        for letter, new in (("h", h), ("c", c), ("n", n)):
            self._enqueue(f"{name}_{letter}", new)
        x = g("Add", x, self._head_norm(h, cell.norm.weight, dim))
        feed, gated = g.split(self._linear(self._norm(x, block.feed_norm), block.up), 2)
        return g("Add", x, self._linear(g("Mul", self._silu(feed), gated), block.down))

    def _head_norm(self, h: str, weight: Tensor, dim: int) -> str:
        g = self.graph
        normed = g("LayerNormalization", h, np.ones(dim, np.float32), axis=-1, epsilon=1e-5)
        return g("Mul", g("Reshape", normed, np.array([0, 0, -1])), _numpy(weight))

    def _head(self, x: str) -> str:
        """Write the scaled quantiles `(B, G, horizon, C, Q)`, in order by construction."""
        g, config = self.graph, self.config
        shape = (0, 0, config.horizon, config.group_channels, len(config.quantiles))
        raw = g(
            "Reshape",
            self._linear(self._norm(x, self.model.norm), self.model.head),
            np.array(shape),
        )
        if len(config.quantiles) == 1:
            return raw
        median = g.cut(raw, axis=4, start=config.median, stop=config.median + 1)
        gaps = g("MatMul", g("Softplus", raw), _numpy(self.model.ordering))
        return g("Add", median, gaps)

    def _linear_path(self, scaled: str, layer: nn.Linear) -> str:
        g, length = self.graph, self.config.linear_length
        window = g("Transpose", self._last(scaled, length), perm=[0, 1, 3, 2])
        path = g("MatMul", window, _numpy(layer.weight).T)
        return g("Unsqueeze", g("Transpose", path, perm=[0, 1, 3, 2]), np.array([4]))

    def _unscale(self, forecast: str, scaling: _Scaling) -> str:
        """Write raw units and the order of the contract: `(B, horizon, channels, Q)`."""
        g, config = self.graph, self.config
        shape = (config.groups, config.group_channels)
        center, spread = (
            _numpy(part).reshape(shape) for part in (self.model.center, self.model.spread)
        )
        scale = g("Mul", scaling.scale, spread)
        mean = g("Add", g("Mul", scaling.mean, spread), center)
        scale, mean = (g("Unsqueeze", part, np.array([2, 4])) for part in (scale, mean))
        raw = g("Add", g("Mul", forecast, scale), mean)
        if config.groups > 1:
            raw = g("Transpose", raw, perm=[0, 2, 1, 3, 4])
        return g(
            "Reshape", raw, np.array([-1, config.horizon, config.n_channels, len(config.quantiles)])
        )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _slstm_weights(block: SLSTMBlock) -> tuple[np.ndarray, np.ndarray]:
    """Stack the three inputs of the sLSTM gates into one matrix, the sign of f turned."""
    cell = block.cell
    width = cell.heads * cell.dim
    weight = np.zeros((3 * width, 4, cell.heads, cell.dim), np.float32)
    weight[:width, :2] = _numpy(cell.input_forget.weight).T.reshape(width, 2, cell.heads, cell.dim)
    weight[width : 2 * width, 2:] = _numpy(cell.cell_output.weight).T.reshape(
        width, 2, cell.heads, cell.dim
    )
    for head, recurrent in enumerate(_numpy(cell.recurrent)):
        rows = slice(2 * width + head * cell.dim, 2 * width + (head + 1) * cell.dim)
        weight[rows, :, head] = recurrent.transpose(2, 0, 1)
    bias = _numpy(cell.bias).copy()
    weight[:, 1] *= -1
    bias[1] *= -1
    return weight.reshape(3 * width, -1), bias.reshape(-1)
