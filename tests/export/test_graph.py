"""The step graph is `XLSTM.step`, in plain operators, for a family of models and any batch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.conftest import CONFIGS, build_model, make_columns, make_readings
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.export import fold, graph, parity
from xlstm_ts.export.contract import (
    COVARIATES,
    FORECAST,
    FUTURE,
    METADATA_KEY,
    READING,
    Contract,
    next_name,
)
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.model import XLSTM

FORBIDDEN = {
    "Einsum", "ScatterND", "If", "Loop", "Scan", "Gelu", "GroupNormalization", "Shape", "Cast",
    "InstanceNormalization", "Range", "CumSum", "Trilu",
}  # fmt: skip


# Nodes of one channel, a token a reading, two blocks: what a step costs.
BUDGET = {"mm": 89, "ms": 100, "ss": 111}


def build_graph(model: XLSTM) -> onnx.ModelProto:
    names = tuple("abc"[: model.config.n_channels])
    return build_step_graph(model, channels=names, step=None, library_version="test")


def read_contract(graph: onnx.ModelProto) -> Contract:
    (entry,) = graph.metadata_props
    assert entry.key == METADATA_KEY
    return Contract.from_json(entry.value)


@pytest.fixture(params=[*CONFIGS, "stabilised", "wide"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> XLSTM:
    if request.param == "stabilised":
        monkeypatch.setattr(fold, "LARGEST_INPUT_GATE", -np.inf)
    if request.param == "wide":
        monkeypatch.setattr(graph, "WIDEST_JOINED", 0)
    return build_model(request.param if request.param in CONFIGS else "patch")


def chain(model: XLSTM, graph: onnx.ModelProto, run, readings: torch.Tensor) -> float:
    """Feed each `_next` output back by name; return the worst error in units of the spread."""
    batch = len(readings)
    fields = read_contract(graph).state
    fed = {}
    for field in fields:
        start = np.empty(field.shape, np.float32)
        start.flat = field.initial
        fed[field.name] = np.concatenate([start] * batch)
    outputs = [FORECAST, *(next_name(field.name) for field in fields)]
    state, worst = model.initial_state(batch), 0.0
    columns = make_columns(model, batch, readings.shape[1])
    ahead, names = model.covariates.ahead(columns), [value.name for value in graph.graph.input]
    for t in range(readings.shape[1]):
        future = ahead[:, t + 1 : t + 1 + model.config.horizon]
        given = [
            part.numpy().astype(np.float32) for part in (readings[:, t], columns[:, t], future)
        ]
        one, beside, later = (torch.as_tensor(part.astype(np.float64)) for part in given)
        with torch.no_grad():
            expected, state = model.step(one, state, beside, later)
        inputs = dict(zip((READING, COVARIATES, FUTURE), given, strict=True))
        inputs = {name: part for name, part in inputs.items() if name in names}
        forecast, *following = run(outputs, {**inputs, **fed})
        fed = {field.name: part for field, part in zip(fields, following, strict=True)}
        error = np.abs(forecast - expected.numpy()) / model.spread.numpy()[:, None]
        worst = max(worst, float(error.max()))
    return worst


@pytest.mark.parametrize("batch", [1, 3])
def test_graph_equals_step_in_onnxruntime(model: XLSTM, batch: int) -> None:
    graph = build_graph(model)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert chain(model, graph, session.run, make_readings(batch, 60)) < 1e-4


@pytest.mark.parametrize(("center", "spread"), [(0.0, 1e-18), (1e15, 1e15), (500.0, 1.0)])
def test_channels_of_any_size(center: float, spread: float) -> None:
    model = build_model("patch")
    readings = (make_readings(2, 60) - model.center) / model.spread
    readings[:, 30] = 2e9  # a code for a missing reading
    model.center.fill_(center)
    model.spread.fill_(spread)
    graph = build_graph(model)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert chain(model, graph, session.run, center + spread * readings) < 1e-4


# Its sigmoid divides exp(x) by itself for large x too, before it drops that.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp", "ignore:invalid value")
def test_graph_equals_step_in_the_reference_runtime(model: XLSTM) -> None:
    graph = build_graph(model)
    assert chain(model, graph, ReferenceEvaluator(graph).run, make_readings(2, 9)) < 1e-4


def test_scaling_does_not_wear_out_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = XLSTM(XLSTMConfig(n_channels=1, horizon=1, blocks="m", scaling_span=2000))
    readings = np.random.default_rng(0).standard_normal((5000, 1)).cumsum(0)
    path = tmp_path / "model.onnx"
    onnx.save(build_graph(model), path)
    assert parity.worst_errors(model, path, readings=readings).max() < 4e-6


def test_graph_is_plain(model: XLSTM) -> None:
    graph = build_graph(model)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 17)]
    assert graph.ir_version == 8
    assert not {node.op_type for node in graph.graph.node} & FORBIDDEN
    assert {node.domain for node in graph.graph.node} == {""}
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param in ("batch", "rows")
    assert read_contract(graph).channels == ("a", "b", "c")


@pytest.mark.parametrize("blocks", BUDGET)
def test_graph_stays_small(blocks: str) -> None:
    model = XLSTM(XLSTMConfig(n_channels=1, horizon=24, blocks=blocks))
    assert len(build_graph(model).graph.node) <= BUDGET[blocks]
