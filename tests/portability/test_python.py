"""Runtimes with an interface in Python forecast what onnxruntime does."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tests.portability.conftest import TOLERANCE, Exported
from xlstm_ts.export.contract import FORECAST, METADATA_KEY, READING, Contract, next_name

ROOT = Path(__file__).parents[2]
Run = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]


def chain(
    exported: Exported, run: Run, *, steps: int | None = None, carry: bool = True
) -> NDArray[np.float32]:
    """Feed the first readings one by one, and each `_next` output back by name."""
    (entry,) = onnx.load(exported.path).metadata_props
    assert entry.key == METADATA_KEY
    state = {}
    for described in Contract.from_json(entry.value).state:
        state[described.name] = np.empty(described.shape, np.float32)
        state[described.name].flat[:] = described.initial
    forecasts = []
    for reading in exported.readings[:steps]:
        results = run({READING: reading[None], **state})
        forecasts.append(np.array(results[FORECAST][0]))
        if carry:
            state = {name: np.array(results[next_name(name)]) for name in state}
    return np.stack(forecasts)


# Its sigmoid divides exp(x) by itself for large x too, before it drops that.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp", "ignore:invalid value")
def test_onnx_reference(exported: Exported) -> None:
    evaluator = ReferenceEvaluator(str(exported.path))
    names = evaluator.output_names

    def run(inputs):
        return dict(zip(names, evaluator.run(None, dict(inputs)), strict=True))

    # It computes what is constant at each step, so rounded weights take it long.
    rounded = any(node.op_type == "Cast" for node in evaluator.proto_.graph.node)
    steps = 100 if rounded else len(exported.readings)
    assert exported.worst_error(chain(exported, run, steps=steps)) <= TOLERANCE
    # What has no memory would be seen.
    forgetful = chain(exported, run, steps=50, carry=False)
    assert exported.worst_error(forgetful) > 1000 * TOLERANCE


OPENVINO = """
import sys
import numpy as np
import openvino
from tests.portability.conftest import Exported
from tests.portability.test_python import chain
path, readings, target = sys.argv[1:]
exported = Exported(path, None, np.load(readings), None, None)
# Of its own accord it computes in bfloat16 where a processor can.
hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
model = openvino.Core().compile_model(path, "CPU", hints)
np.save(target, chain(exported, lambda inputs: {
    output.get_any_name(): value for output, value in model(dict(inputs)).items()
}))
"""


def test_openvino(exported: Exported, tmp_path: Path) -> None:
    if find_spec("openvino") is None:
        pytest.skip("no OpenVINO: pip install openvino")
    np.save(tmp_path / "readings.npy", exported.readings)
    arguments = [exported.path, tmp_path / "readings.npy", tmp_path / "forecasts.npy"]
    # Its own process: its warnings are not ours.
    subprocess.run([sys.executable, "-c", OPENVINO, *arguments], cwd=ROOT, check=True)
    assert exported.worst_error(np.load(tmp_path / "forecasts.npy")) <= TOLERANCE
