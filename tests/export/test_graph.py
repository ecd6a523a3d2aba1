"""The step graph is `XLSTM.step`, in plain operators, for a family of models and any batch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.conftest import CONFIGS, build_model, make_readings
from xlstm_ts.export.contract import (
    FORECAST,
    METADATA_KEY,
    READING,
    Contract,
    StateArray,
    next_name,
)
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.model import XLSTM

FORBIDDEN = {
    "Einsum", "ScatterND", "If", "Loop", "Scan", "Gelu", "GroupNormalization", "Shape", "Cast",
    "InstanceNormalization", "Range", "CumSum", "Trilu",
}  # fmt: skip


def build_graph(model: XLSTM) -> onnx.ModelProto:
    contract = Contract(
        channels=("a", "b", "c"),
        horizon=model.config.horizon,
        quantiles=model.config.quantiles,
        step=None,
        state=tuple(StateArray(**field._asdict()) for field in model.state_fields()),
        library_version="test",
    )
    return build_step_graph(model, contract)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> XLSTM:
    return build_model(request.param)


def chain(model: XLSTM, run, readings: torch.Tensor) -> float:
    """Feed each `_next` output back by name; return the worst error in units of the spread."""
    names = [field.name for field in model.state_fields()]
    state = model.initial_state(len(readings))
    fed = {name: part.numpy().astype(np.float32) for name, part in zip(names, state, strict=True)}
    outputs = [FORECAST, *map(next_name, names)]
    worst = 0.0
    for reading in readings.unbind(1):
        single = reading.numpy().astype(np.float32)
        with torch.no_grad():
            expected, state = model.step(torch.as_tensor(single.astype(np.float64)), state)
        forecast, *following = run(outputs, {READING: single, **fed})
        fed = dict(zip(names, following, strict=True))
        error = np.abs(forecast - expected.numpy()) / model.spread.numpy()[:, None]
        worst = max(worst, float(error.max()))
    return worst


@pytest.mark.parametrize("batch", [1, 3])
def test_graph_equals_step_in_onnxruntime(model: XLSTM, batch: int, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    onnx.save(build_graph(model), path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert chain(model, session.run, make_readings(batch, 60)) < 1e-4


def test_graph_equals_step_in_the_reference_runtime(model: XLSTM) -> None:
    assert chain(model, ReferenceEvaluator(build_graph(model)).run, make_readings(2, 9)) < 1e-4


def test_graph_is_plain(model: XLSTM) -> None:
    graph = build_graph(model)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 17)]
    assert graph.ir_version == 8
    assert not {node.op_type for node in graph.graph.node} & FORBIDDEN
    assert {node.domain for node in graph.graph.node} == {""}
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    (entry,) = graph.metadata_props
    assert entry.key == METADATA_KEY
    assert Contract.from_json(entry.value).channels == ("a", "b", "c")
