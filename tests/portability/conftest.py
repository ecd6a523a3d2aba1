"""One file of each kind, the readings of a stream, and what onnxruntime in Python forecasts."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from xlstm_ts import XLSTMForecaster
from xlstm_ts.export.contract import FORECAST
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel

STEPS = 1000
TOLERANCE = 1e-4


class Exported(NamedTuple):
    """A step graph, readings in a CSV file, and the forecast after each of them.

    `expected` is `(T, horizon, C, Q)`, `scale` what a channel is divided by at a reading `(T, C)`.
    """

    path: Path
    csv: Path
    readings: NDArray[np.float32]
    expected: NDArray[np.float32]
    scale: NDArray[np.float64]

    def worst_error(self, forecasts: NDArray[np.float64]) -> float:
        """Return the largest error of the first forecasts in scaled units; of one, as the last."""
        forecasts = np.reshape(forecasts, (-1, *self.expected.shape[1:]))
        part = slice(-1, None) if len(forecasts) == 1 else slice(len(forecasts))
        errors = np.abs(forecasts - self.expected[part]) / self.scale[part, None, :, None]
        return float(errors.max())


def make_readings() -> pd.DataFrame:
    """Return two channels of different size, with gaps and a shift of the level."""
    rng, hours = np.random.default_rng(0), np.arange(STEPS + 500)
    values = np.stack([np.sin(hours * np.pi / 12), np.cos(hours * np.pi / 12)], 1)
    values = [50, 3] + values * [10, 1] + [1, 0.1] * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < 0.03] = np.nan
    values[-300:] += [80, -5]
    index = pd.date_range("2024-01-01", periods=len(hours), freq="h")
    return pd.DataFrame(values, index=index, columns=["load", "flow"])


@cache
def fit(blocks: str) -> XLSTMForecaster:
    """Return a small forecaster of the first readings, by the hour."""
    return XLSTMForecaster(
        6, patch_length=3, blocks=blocks, d_model=16, n_heads=2, context_length=60, max_steps=40,
        random_state=0,
    ).fit(make_readings().iloc[:500])  # fmt: skip


@pytest.fixture(scope="session", params=["mm float32", "ms float32", "mm float16", "ms int8"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a small forecaster of two channels as a file, with a thousand readings to replay."""
    blocks, weights = request.param.split()
    y, folder, forecaster = make_readings(), tmp_path_factory.mktemp("exported"), fit(blocks)
    path, csv = folder / "model.onnx", folder / "readings.csv"
    export_onnx(forecaster, path, units={"load": "kW", "flow": "m³/h"}, weights=weights)
    readings = y.iloc[500:].astype(np.float32)
    # Columns in another order, and one more: those of the model are found by their names.
    table = readings.assign(extra=1)[["flow", "extra", "load"]]
    table.to_csv(csv, float_format="%.9g", index_label="time", na_rep=" ")  # blank is missing
    stream = StreamModel(path).create_stream()
    expected = np.stack([stream.step(reading).quantiles for reading in readings.to_numpy()])
    model = copy.deepcopy(forecaster.model_).double().eval()
    given = torch.as_tensor(readings.to_numpy().astype(np.float64))[None]
    with torch.inference_mode():
        scale = model.scale(given, model.initial_state(1))[0].numpy()
    return Exported(path, csv, readings.to_numpy(), expected, scale)


def with_score(path: Path, target: Path) -> None:
    """Write a graph that has a score beside its forecast, as one that judges readings would."""
    model = onnx.load(path)
    node = helper.make_node("ReduceMax", [FORECAST], ["score"], axes=[1, 2, 3], keepdims=0)
    model.graph.node.append(node)
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])
    model.graph.output.append(score)
    onnx.save(model, target)
