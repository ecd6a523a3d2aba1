"""Accuracy and cost on a standard split, beside NLinear and seasonal-naive trained in the same run.

`python benchmarks/forecast.py --dataset ETTh1 --horizon 96`: 12/4/4 months, z-score by the training
part, all test windows of stride one. The exported graph then streams the test range with carried
state. One thread. Sources of the data: `xlstm_ts.datasets.registry`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _report import Report
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.loaders import fetch_ett
from xlstm_ts.evaluation import rolling_forecasts, seasonal_naive, targets
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel

TRAIN, VALIDATION, TEST = 8640, 2880, 2880
CONTEXT, SEASON = 504, 24
Array = NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ETTh1", choices=["ETTh1"])
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="150 steps, every 24th test window")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    values = fetch_ett(options.dataset).to_numpy()[: TRAIN + VALIDATION + TEST]
    z = (values - values[:TRAIN].mean(0)) / values[:TRAIN].std(0)
    horizon, known = options.horizon, TRAIN + VALIDATION
    origins = np.arange(known, len(z) - horizon + 1, 24 if options.quick else 1)
    truth = targets(z, origins=origins, horizon=horizon)
    barred = not options.quick and horizon == 96
    report = Report()

    naive = seasonal_naive(z, origins=origins, horizon=horizon, season=SEASON)
    _errors(report, "seasonal-naive", naive, truth)
    start = time.process_time()
    nlinear = _train_nlinear(z[:TRAIN], horizon, steps=200 if options.quick else 2000)
    report.add("NLinear CPU seconds", time.process_time() - start)
    _errors(report, "NLinear", _nlinear_forecasts(nlinear, z, origins), truth)

    forecaster = XLSTMForecaster(
        horizon,
        quantiles=(0.5,),
        context_length=CONTEXT,
        patch_length=SEASON,
        validation_fraction=VALIDATION / known,
        max_steps=150 if options.quick else options.steps,
        random_state=options.seed,
        device="cpu",
    )
    start = time.process_time()
    forecaster.fit(z[:known])
    fit_bar = 120 if barred else None
    report.add("xLSTM fit CPU seconds", time.process_time() - start, most=fit_bar)
    parameters = sum(weight.numel() for weight in forecaster.model_.parameters())
    report.add("xLSTM parameters", parameters)
    windowed = rolling_forecasts(forecaster.model_, z, origins=origins, context_length=CONTEXT)[
        ..., 0
    ]
    bars = (0.365, 0.390) if barred else (None, None)
    mse = _errors(report, "xLSTM", windowed, truth, bars=bars)
    streamed = _stream(forecaster, z, origins)
    streamed_mse = _errors(report, "xLSTM streamed", streamed, truth)
    ratio_bar = None if options.quick else 1.02
    report.add("streamed MSE / windowed MSE", streamed_mse / mse, most=ratio_bar)
    return report.finish(check=options.check)


def _errors(
    report: Report,
    name: str,
    forecast: Array,
    truth: Array,
    *,
    bars: tuple[float | None, float | None] = (None, None),
) -> float:
    """Report MSE and MAE; return the MSE."""
    mse = float(np.square(forecast - truth).mean())
    report.add(f"{name} MSE", mse, most=bars[0])
    report.add(f"{name} MAE", float(np.abs(forecast - truth).mean()), most=bars[1])
    return mse


def _train_nlinear(z: Array, horizon: int, *, steps: int) -> nn.Linear:
    """Train NLinear (Zeng et al. 2023): one linear map of the context less its last value.

    With the loss and the schedule that the forecaster has, and more windows.
    """
    torch.manual_seed(0)
    series = torch.as_tensor(z.T, dtype=torch.float32)
    layer = nn.Linear(CONTEXT, horizon)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        starts = torch.randint(series.shape[1] - CONTEXT - horizon + 1, (256, 1))
        channels = torch.randint(len(series), (256, 1))
        window = series[channels, starts + torch.arange(CONTEXT + horizon)]
        context, target = window[:, :CONTEXT], window[:, CONTEXT:]
        last = context[:, -1:]
        loss = F.l1_loss(layer(context - last) + last, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return layer


@torch.inference_mode()
def _nlinear_forecasts(layer: nn.Linear, z: Array, origins: NDArray[np.int64]) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(z, CONTEXT, axis=0)[origins - CONTEXT]
    context = torch.as_tensor(windows, dtype=torch.float32)
    last = context[..., -1:]
    return (layer(context - last) + last).numpy().swapaxes(1, 2)


def _stream(forecaster: XLSTMForecaster, z: Array, origins: NDArray[np.int64]) -> Array:
    """Stream everything from the first reading; return the forecasts at the origins."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(forecaster, path)
        stream = StreamModel(path).create_stream()
        wanted, forecasts = set(origins.tolist()), []
        for known, reading in enumerate(z[: origins[-1]].astype(np.float32), start=1):
            output = stream.step(reading)
            if known in wanted:
                forecasts.append(output.forecast)
    return np.stack(forecasts).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
