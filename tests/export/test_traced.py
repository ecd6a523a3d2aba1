"""A second producer of the same function: what torch's exporter traces from `XLSTM.step`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks._traced import trace_step
from tests.conftest import CONFIGS, build_model, make_readings
from tests.export.test_graph import build_graph
from xlstm_ts.export.contract import FORECAST, READING, next_name
from xlstm_ts.export.graph import read_contract

STEPS, BATCH = 40, 2  # not the batch that is traced
Run = ort.InferenceSession


def forecasts(session: Run, state: dict[str, np.ndarray], readings: np.ndarray) -> np.ndarray:
    """Chain steps over readings `(B, T, C)`; return the forecasts, time first."""
    outputs = []
    for t in range(readings.shape[1]):
        names = [FORECAST, *map(next_name, state)]
        forecast, *after = session.run(names, {READING: readings[:, t], **state})
        state = dict(zip(state, after, strict=True))
        outputs.append(forecast)
    return np.stack(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", ["mm", "ms"])
def test_built_and_traced_graph_agree(
    blocks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
    monkeypatch.setitem(CONFIGS, blocks, {"blocks": blocks, "patch_length": 3, "linear_length": 5})
    model = build_model(blocks).float()
    readings = make_readings(BATCH, STEPS).float().numpy()
    trace_step(model, tmp_path / "traced.onnx")
    traced = Run(tmp_path / "traced.onnx", providers=["CPUExecutionProvider"])
    start = zip(model.state_fields(), model.initial_state(BATCH), strict=True)
    expected = forecasts(traced, {field.name: part.numpy() for field, part in start}, readings)
    graph = build_graph(model)
    built = Run(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    state = {}
    for described in read_contract(graph).state:
        array = np.empty(described.shape, np.float32)
        array.flat = described.initial
        state[described.name] = np.concatenate([array] * BATCH)
    wrong = np.abs(forecasts(built, state, readings) - expected)
    # The exporter writes log sigmoid as Log(Sigmoid), which loses digits of open forget gates.
    assert (wrong / model.spread.numpy()[:, None]).max() < 1e-3
