"""What several tests share: small models, a fitted forecaster and its graph."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

# Triton reads this when a kernel is decorated, hence before anything of ours imports one.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Likewise matplotlib, when the first picture is drawn: no test opens a window.
os.environ["MPLBACKEND"] = "Agg"

from xlstm_ts import XLSTMAnomalyDetector, XLSTMForecaster
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.model import XLSTM

# Small tensors on shared cores: more threads only wait for one another.
torch.set_num_threads(1)

CONFIGS: dict[str, dict[str, object]] = {
    "plain": {},
    "patch": {"patch_length": 3},
    "mixed": {"patch_length": 3, "blocks": "ms", "linear_length": 7, "channels": "mixed"},
    "short linear path": {"patch_length": 4, "blocks": "sm", "linear_length": 2},
    "linear path alone": {"linear_length": 1},
    "no blocks": {"blocks": "", "patch_length": 2, "linear_length": 5},
    "point": {"blocks": "s", "quantiles": (0.5,), "expansion": 2},
    "no convolution": {"patch_length": 2, "conv_length": 0},
    "no convolution, mixed": {"blocks": "sm", "conv_length": 0, "channels": "mixed"},
    "many quantiles": {"patch_length": 2, "quantiles": (0.05, 0.2, 0.6, 0.9), "channels": "mixed"},
    "channel embedding": {"patch_length": 3, "channel_embedding": True, "n_known": 1},
    "past columns": {"n_past": 2},
    "calendar alone": {"patch_length": 2, "periods": (12,), "n_static": 1},
    "known columns": {"patch_length": 3, "n_known": 1, "n_static": 2, "periods": (7,)},
    "all columns": {
        "n_past": 1,
        "n_known": 2,
        "n_static": 1,
        "periods": (24, 7),
        "patch_length": 2,
        "linear_length": 5,
        "channels": "mixed",
    },
}

ARRAY = np.sin(np.arange(160) * np.pi / 4) + 0.1 * np.random.default_rng(0).standard_normal(160)
HOURLY = pd.date_range("2024-03-29", periods=160, freq="h", tz="Europe/Rome", name="time")


def small(**changes: object) -> XLSTMForecaster:
    """Return a forecaster of `ARRAY` that is fitted in no time."""
    options = {
        "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
        "max_steps": 3, "random_state": 0,
    }  # fmt: skip
    return XLSTMForecaster(**{**options, **changes})


def build_model(name: str) -> XLSTM:
    """Return a float64 model of three channels whose weights are all away from their start."""
    torch.manual_seed(0)
    config = XLSTMConfig(
        n_channels=3, horizon=5, d_model=8, n_heads=2, scaling_span=8, **CONFIGS[name]
    )
    model = XLSTM(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
        model.center.copy_(torch.tensor([100.0, 0.0, -5.0]))
        model.spread.copy_(torch.tensor([3.0, 0.5, 1.0]))
        model.covariates.center.fill_(10)
        model.covariates.spread.fill_(3)
    return model


def make_readings(batch: int, length: int, *, seed: int = 1) -> torch.Tensor:
    """Return raw readings `(batch, length, 3)` with single and long gaps."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, length, 3, generator=generator, dtype=torch.float64)
    readings = noise.cumsum(1) * torch.tensor([3.0, 0.5, 1.0]) + torch.tensor([100.0, 0.0, -5.0])
    readings[torch.rand(batch, length, 3, generator=generator) < 0.2] = torch.nan
    readings[0, length // 4 : length // 2] = torch.nan
    readings[-1, 0] = torch.nan  # nothing seen yet
    return readings


def make_columns(model: XLSTM, batch: int, length: int, *, seed: int = 2) -> torch.Tensor:
    """Return raw columns `(batch, length + horizon, columns)` with gaps for a model's readings."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    shape, numbers = (batch, length + config.horizon), config.n_columns - len(config.periods)
    columns = torch.randn(*shape, numbers, generator=generator, dtype=torch.float64)
    columns[torch.rand(columns.shape, generator=generator) < 0.1] = torch.nan
    if config.n_static:
        columns[..., -config.n_static :] = torch.arange(config.n_static, dtype=torch.float64)
    count = torch.arange(shape[1], dtype=torch.float64)
    cyclic = [(count % period).expand(shape) for period in config.periods]
    return torch.cat((10 + 3 * columns, *(part.unsqueeze(-1) for part in cyclic)), 2)


@pytest.fixture(autouse=True)
def no_open_figures() -> Iterator[None]:
    """Close what a test has drawn: pyplot keeps every figure, and warns of many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def data_home() -> Path:
    """Return the folder of the real data."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("XLSTM_TS_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set XLSTM_TS_DATA")
    return folder


@pytest.fixture(scope="session")
def sine() -> pd.DataFrame:
    """Return two noisy daily cycles, hourly, with a few gaps."""
    rng = np.random.default_rng(0)
    hours = np.arange(700)
    values = np.stack([np.sin(hours * np.pi / 12), np.cos(hours * np.pi / 12)], 1)
    values = [50, 3] + values * [10, 1] + 0.1 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < 0.02] = np.nan
    index = pd.date_range("2024-01-01", periods=len(hours), freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=["a", "b"])


@pytest.fixture(scope="session")
def detector_path(sine: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the graph of a small detector, fitted to the first 600 readings of `sine`."""
    detector = XLSTMAnomalyDetector(
        alarms_per_day=0.1, d_model=8, n_heads=2, context_length=32, max_steps=3, random_state=0
    )
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    export_detector(detector.fit(sine.iloc[:600]), path)
    return path


@pytest.fixture(scope="session")
def fitted(sine: pd.DataFrame) -> XLSTMForecaster:
    """Return a small forecaster fitted to the first 600 readings of `sine`."""
    forecaster = XLSTMForecaster(
        12, d_model=16, n_heads=2, context_length=96, max_steps=60, dropout=0.0, random_state=0
    )
    return forecaster.fit(sine.iloc[:600])


@pytest.fixture(scope="session")
def graph_path(fitted: XLSTMForecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported graph of `fitted`."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(fitted, path)
    return path
