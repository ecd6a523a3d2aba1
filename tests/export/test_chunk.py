"""The warm-up graph leaves the state that steps leave, for a family of models and any batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.conftest import CONFIGS, build_model, make_columns, make_readings
from tests.export.test_graph import FORBIDDEN, build_graph
from xlstm_ts.export import fold
from xlstm_ts.export.chunk import build_chunk_graph, chunk_length
from xlstm_ts.export.contract import COVARIATES, FUTURE, READING, READINGS
from xlstm_ts.export.graph import read_contract
from xlstm_ts.model import XLSTM

Run = Callable[[None, dict[str, np.ndarray]], list[np.ndarray]]
MODELS = [name for name, changes in CONFIGS.items() if "s" not in str(changes.get("blocks"))]


@pytest.fixture(params=[*MODELS, "stabilised"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> XLSTM:
    if request.param != "stabilised":
        return build_model(request.param)
    monkeypatch.setattr(fold, "LARGEST_INPUT_GATE", -np.inf)
    return build_model("patch")


def session(graph: onnx.ModelProto) -> Run:
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run


class Play:
    """Readings of a batch that chunks and steps take by turns, beside the model in float64."""

    def __init__(self, model: XLSTM, *, batch: int, length: int) -> None:
        self.model, self.step_graph = model, build_graph(model)
        contract = read_contract(self.step_graph)
        self.chunk_graph = build_chunk_graph(model, contract)
        self.chunk = read_contract(self.chunk_graph).chunk
        self.names = [described.name for described in contract.state]
        self.state = {}
        for described in contract.state:
            start = np.empty(described.shape, np.float32)
            start.flat = described.initial
            self.state[described.name] = np.concatenate([start] * batch)
        readings = make_readings(batch, length).float()
        columns = make_columns(model, batch, length).float()
        with torch.no_grad():
            truth, _ = model(readings.double(), covariates=columns.double())
            scale = model.scale(readings.double())
        self.readings, self.columns, self.truth, self.scale = (
            part.numpy() for part in (readings, columns, truth, scale)
        )
        self.ahead = model.covariates.ahead(columns).numpy()
        self.t = 0

    def take(self, run: Run, graph: onnx.ModelProto, count: int) -> float:
        """Take the next readings by one call; return the error in scaled units."""
        start, self.t = self.t, self.t + count
        now = start if graph is self.step_graph else slice(start, self.t)
        given = {
            READING: self.readings[:, now],
            READINGS: self.readings[:, now],
            COVARIATES: self.columns[:, now],
            FUTURE: self.ahead[:, self.t : self.t + self.model.config.horizon],
            **self.state,
        }
        forecast, *after = run(None, {value.name: given[value.name] for value in graph.graph.input})
        self.state = dict(zip(self.names, after, strict=True))
        wrong = np.abs(forecast - self.truth[:, self.t - 1])
        return float((wrong / self.scale[:, self.t - 1, None, :, None]).max())


@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_and_steps_are_interchangeable(model: XLSTM, batch: int) -> None:
    chunk = chunk_length(model.config.patch_length)
    play = Play(model, batch=batch, length=3 * chunk + 22)
    step, many = session(play.step_graph), session(play.chunk_graph)
    errors = []
    for steps in (0, 7, 5):
        errors += [play.take(step, play.step_graph, 1) for _ in range(steps)]
        errors.append(play.take(many, play.chunk_graph, chunk))
    errors += [play.take(step, play.step_graph, 1) for _ in range(10)]
    assert max(errors) < 2e-5


@pytest.mark.filterwarnings("ignore:overflow encountered in exp", "ignore:invalid value")
@pytest.mark.parametrize("name", ["plain", "known columns", "stabilised"])
def test_chunks_in_the_reference_runtime(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "stabilised":
        monkeypatch.setattr(fold, "LARGEST_INPUT_GATE", -np.inf)
        name = "patch"
    model = build_model(name)
    chunk = chunk_length(model.config.patch_length)
    play = Play(model, batch=2, length=2 * chunk)
    run = ReferenceEvaluator(play.chunk_graph).run
    assert max(play.take(run, play.chunk_graph, chunk) for _ in range(2)) < 2e-5


def test_warm_up_graph_is_plain(model: XLSTM) -> None:
    contract = read_contract(build_graph(model))
    graph = build_chunk_graph(model, contract)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 17)]
    assert graph.ir_version == 8
    assert not {node.op_type for node in graph.graph.node} & FORBIDDEN
    assert {node.domain for node in graph.graph.node} == {""}
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param in ("batch", "rows")
    own = read_contract(graph)
    assert (own.state, own.weights_hash) == (contract.state, contract.weights_hash)


@pytest.mark.parametrize(("patch", "length"), [(1, 64), (3, 66), (24, 72), (64, 64), (168, 168)])
def test_chunks_are_whole_patches(patch: int, length: int) -> None:
    assert chunk_length(patch) == length


@pytest.mark.parametrize("name", ["mixed", "point"])
def test_slstm_blocks_are_refused(name: str) -> None:
    model = build_model(name)
    with pytest.raises(ValueError, match=f"got blocks='{model.config.blocks}'"):
        build_chunk_graph(model, read_contract(build_graph(model)))
