"""Accuracy and cost on a standard split, beside NLinear, seasonal-naive and no recurrence at all.

`python benchmarks/forecast.py --dataset ETTh1 --horizon 96`: the splits of the literature, z-score
by the training part, all test windows of stride one, everything trained in the same run. The
exported graph then streams the test range with carried state. One thread. Sources of the data:
`xlstm_ts.datasets.registry`. `--blocks` takes several stacks, the first of which carries the bars:
"" is no recurrence, and the backbones of `_backbones.py` have as many parameters as "mm".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _backbones import BACKBONES, STREAMED, stack
from _data import Array, Split, load
from _report import Report
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from xlstm_ts import XLSTMForecaster
from xlstm_ts.evaluation import rolling_forecasts, seasonal_naive, targets
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.panels import TimeSeries
from xlstm_ts.streaming import StreamModel

CONTEXT, PATCH = 504, 24
SEASONS = {"ETTh1": 24, "Weather": 144}
SETTINGS = {
    "ETTh1": {"max_steps": 1000, "scaling_span": 336},
    "Weather": {
        "max_steps": 1000,
        "batch_size": 128,
        "scaling_span": 504,
        "dropout": 0.1,
        "channel_embedding": True,
        "calendar": ("hour",),
    },
}
# MSE and MAE by data set and horizon: the level of the literature.
BARS = {
    ("ETTh1", 96): (0.358, 0.384),
    ("ETTh1", 192): (0.398, 0.410),
    ("ETTh1", 336): (0.422, 0.426),
    ("ETTh1", 720): (0.440, 0.452),
    ("Weather", 96): (0.146, 0.184),
    ("Weather", 192): (0.190, 0.227),
    ("Weather", 336): (0.241, 0.266),
    ("Weather", 720): (0.312, 0.318),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ETTh1", choices=list(SETTINGS))
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", nargs="+", default=["mm", ""], choices=["", *BACKBONES])
    parser.add_argument("--stateful", action="store_true", help="train from carried states")
    parser.add_argument("--quick", action="store_true", help="150 steps, every 24th test window")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    split = load(options.dataset)
    origins = split.origins(options.horizon, stride=24 if options.quick else 1)
    truth = targets(split.z, origins=origins, horizon=options.horizon)
    report = Report()
    _peers(report, split, origins, truth, options)
    barred = not options.quick
    bars = BARS.get((options.dataset, options.horizon)) if barred else None
    for blocks in options.blocks:
        _forecaster(report, split, origins, truth, options, blocks=blocks, bars=bars)
        bars = None
    return report.finish(check=options.check)


def _peers(
    report: Report,
    split: Split,
    origins: NDArray[np.int64],
    truth: Array,
    options: argparse.Namespace,
) -> None:
    season = SEASONS[options.dataset]
    naive = seasonal_naive(split.z, origins=origins, horizon=options.horizon, season=season)
    _errors(report, "seasonal-naive", naive, truth)
    start = time.process_time()
    steps = 200 if options.quick else 2000
    nlinear = _train_nlinear(split.z[: split.train], options.horizon, steps=steps)
    report.add("NLinear CPU seconds", time.process_time() - start)
    _errors(report, "NLinear", _nlinear_forecasts(nlinear, split.z, origins), truth)


def _forecaster(
    report: Report,
    split: Split,
    origins: NDArray[np.int64],
    truth: Array,
    options: argparse.Namespace,
    *,
    blocks: str,
    bars: tuple[float, float] | None,
) -> None:
    settings = SETTINGS[options.dataset] | ({"max_steps": 150} if options.quick else {})
    name = f"xLSTM {blocks}" if blocks in STREAMED else blocks or "without blocks"
    start = time.process_time()
    with stack(blocks) as shape:
        forecaster = XLSTMForecaster(
            options.horizon,
            quantiles=(0.5,),
            context_length=CONTEXT,
            patch_length=PATCH,
            validation_fraction=split.validation / split.known,
            stateful=options.stateful,
            random_state=options.seed,
            device="cpu",
            **shape,
            **settings,
        ).fit(pd.DataFrame(split.z, split.index).iloc[: split.known])
    fit_bar = 120 if bars else None
    report.add(f"{name} fit CPU seconds", time.process_time() - start, most=fit_bar)
    parameters = sum(weight.numel() for weight in forecaster.model_.parameters())
    report.add(f"{name} parameters", parameters)
    whole = TimeSeries(values=split.z, index=split.index, covariates=np.empty((len(split.z), 0)))
    windowed = rolling_forecasts(
        forecaster.model_,
        split.z,
        origins=origins,
        context_length=CONTEXT,
        covariates=forecaster.covariates_.table(whole),
    )[..., 0]
    mse = _errors(report, name, windowed, truth, bars=bars or (None, None))
    if blocks in STREAMED:
        streamed_mse = _errors(
            report, f"{name} streamed", _stream(forecaster, split, origins), truth
        )
        bar = None if options.quick else 1.02
        report.add(f"{name} streamed MSE / windowed MSE", streamed_mse / mse, most=bar)


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
    forecasts = []
    for part in np.array_split(windows, 1 + len(windows) // 1000):
        context = torch.as_tensor(np.ascontiguousarray(part), dtype=torch.float32)
        last = context[..., -1:]
        forecasts.append((layer(context - last) + last).numpy().swapaxes(1, 2))
    return np.concatenate(forecasts)


def _stream(forecaster: XLSTMForecaster, split: Split, origins: NDArray[np.int64]) -> Array:
    """Stream everything from the first reading; return the forecasts at the origins."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(forecaster, path)
        stream = StreamModel(path).create_stream()
        wanted, forecasts = set(origins.tolist()), []
        readings = split.z[: origins[-1]].astype(np.float32)
        times = split.index if forecaster.calendar else [None] * len(split.index)
        for known, (reading, time) in enumerate(zip(readings, times, strict=False), start=1):
            output = stream.step(reading, time=time)
            if known in wanted:
                forecasts.append(output.forecast)
    return np.stack(forecasts).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
