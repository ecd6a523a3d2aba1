"""Rounded weights: smaller files of the same graph, whose error is known, told and limited."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.conftest import build_model, make_readings
from tests.export.test_graph import build_graph, chain
from xlstm_ts import XLSTMForecaster
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import ExportError
from xlstm_ts.export import quantize
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.export.quantize import round_weights
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel

# Bits of a number that is rounded to the nearest, as a share of the largest: half of the last one.
HALF_STEP = {"float16": 2**-11, "int8": 1 / 254}
STORED = {"float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}


def restored(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Compute what the nodes that depend on no input give, by name."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    given = set(known)
    for node in graph.graph.node:
        if all(name in known for name in node.input):
            inputs = [known[name] for name in node.input]
            (known[node.output[0]],) = ReferenceEvaluator(node).run(
                None, dict(zip(node.input, inputs, strict=True))
            )
    return {name: value for name, value in known.items() if name not in given}


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("name", ["patch", "mixed", "all columns"])
def test_only_large_matrices_are_rounded_to_the_nearest(name: str, weights: str) -> None:
    graph = build_graph(build_model(name))
    rounded = round_weights(graph, weights=weights)
    back, stored = restored(rounded), {t.name: t for t in rounded.graph.initializer}
    changed = 0
    for tensor in graph.graph.initializer:
        exact = numpy_helper.to_array(tensor)
        if tensor.name in stored:
            np.testing.assert_array_equal(numpy_helper.to_array(stored[tensor.name]), exact)
            assert tensor.dims[-1:] == [1] or exact.ndim < 2 or exact.size < 257
        else:
            far = np.abs(exact) > 65504
            got, columns = back[tensor.name], np.where(far, 0, np.abs(exact)).max(0)
            np.testing.assert_array_equal(got[far], exact[far])
            largest = columns if weights == "int8" else np.abs(exact)
            allowed = 1.01 * HALF_STEP[weights] * np.broadcast_to(largest, exact.shape) + 2**-25
            assert (np.abs(got - exact) <= allowed)[~far].all()
            assert stored[f"{tensor.name}_{weights}"].data_type == STORED[weights]
            changed += 1
    assert changed >= 4
    assert {n.op_type for n in rounded.graph.node} <= {n.op_type for n in graph.graph.node} | {
        "Cast", "Mul", "Concat",
    }  # fmt: skip


def test_gates_stay_shut_where_there_was_no_token() -> None:
    model = build_model("mixed")
    for weights in ("float16", "int8"):
        graph = round_weights(build_graph(model), weights=weights)
        options = ort.SessionOptions()
        session = ort.InferenceSession(graph.SerializeToString(), options)
        # NaN where the row of gates became infinite, far off where it took the others' digits.
        error = chain(model, graph, session.run, make_readings(2, 60))
        assert error < {"float16": 0.05, "int8": 1}[weights]


def test_columns_of_zeros_stay_zeros() -> None:
    model = build_model("mixed")
    model.head.linear.weight.data[::2] = 0
    back = restored(round_weights(build_graph(model), weights="int8"))
    shape = model.head.linear.weight.shape[::-1]
    heads = [value for value in back.values() if value.shape == shape]
    assert any((head[:, ::2] == 0).all() and (head[:, 1::2] != 0).any() for head in heads)


@pytest.fixture(scope="module")
def wide(sine: pd.DataFrame) -> XLSTMForecaster:
    """Return a forecaster of enough weights for their size to show beside the rest of a file."""
    forecaster = XLSTMForecaster(12, d_model=32, context_length=96, max_steps=20, random_state=0)
    return forecaster.fit(sine.iloc[:600])


@pytest.mark.parametrize(("weights", "smaller"), [("float16", 1.5), ("int8", 2.0)])
def test_costs_are_measured_and_told(
    weights: str, smaller: float, wide: XLSTMForecaster, tmp_path: Path
) -> None:
    path, whole = tmp_path / "model.onnx", tmp_path / "whole.onnx"
    report = export_onnx(wide, path, weights=weights)
    assert export_onnx(wide, whole).weights_error is None
    assert whole.stat().st_size > smaller * path.stat().st_size
    assert 1e-5 < report.weights_error <= quantize.LIMITS[weights]
    assert report.weights_error < max(report.random, report.real)
    contract = StreamModel(path).contract
    assert (contract.weights, contract.weights_error) == (weights, report.weights_error)
    exact = StreamModel(whole).contract
    assert (exact.weights, exact.weights_error) == ("float32", None)


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_too_costly_weights_are_refused(
    weights: str, fitted: XLSTMForecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = quantize.LIMITS[weights]
    for error, refused in ((0.99 * limit, False), (1.01 * limit, True), (np.nan, True)):
        made_up = np.array([[0.0, 0.0], [error, -error]])
        monkeypatch.setattr(quantize, "parity_errors", lambda *_, e=made_up, **__: e)
        path = tmp_path / f"{error}.onnx"
        if refused:
            with pytest.raises(ExportError, match=f"{error:.2%}.* is allowed.*No file"):
                export_onnx(fitted, path, weights=weights)
        else:
            assert export_onnx(fitted, path, weights=weights).weights_error == pytest.approx(error)
        assert path.exists() is not refused


def test_weights_are_checked_first(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`weights` must be one of 'float32', .* got 'int4'"):
        export_onnx(fitted, tmp_path / "model.onnx", weights="int4")
    assert list(tmp_path.iterdir()) == []


def test_rounded_matrices_are_computed_once(tmp_path: Path) -> None:
    model = XLSTM(XLSTMConfig(n_channels=1, horizon=24, blocks="ms"))
    names = {}
    for weights in ("float32", "float16", "int8"):
        graph = build_graph(model)
        graph = graph if weights == "float32" else round_weights(graph, weights=weights)
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{weights}.onnx")
        ort.InferenceSession(graph.SerializeToString(), options)
        loaded = onnx.load(options.optimized_model_filepath)
        names[weights] = [node.op_type for node in loaded.graph.node]
    assert names["float32"] == names["float16"] == names["int8"]
