"""One model for the 414 series of M4 Hourly, judged as the competition did: sMAPE and MASE.

`python benchmarks/panel.py`: trains on the training part, forecasts the next 48 hours of every
series, beside seasonal-naive and the linear path alone. One thread. `--blocks` as of forecast.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from _backbones import BACKBONES, STREAMED, stack
from _data import Array
from _report import Report

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.loaders import fetch_m4
from xlstm_ts.metrics import mase, seasonal_scale, smape

HORIZON, DAY = 48, 24


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--blocks", nargs="+", default=["mm", ""], choices=["", *BACKBONES])
    parser.add_argument("--quick", action="store_true", help="100 steps")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    panel = fetch_m4("Hourly")
    past = [part.to_numpy() for _, part in panel.train.groupby("unique_id", sort=False)["y"]]
    truth = panel.test["y"].to_numpy().reshape(-1, HORIZON, 1)
    scale = np.stack([seasonal_scale(one[:, None], season=DAY) for one in past])[:, None]
    report = Report()
    naive = np.stack([np.tile(one[-DAY:], HORIZON // DAY) for one in past])[..., None]
    _errors(report, "seasonal-naive", naive, truth, scale)
    bars: tuple[float | None, float | None] = (None, None) if options.quick else (11.0, 1.0)
    for blocks in options.blocks:
        name = f"xLSTM {blocks}" if blocks in STREAMED else blocks or "without blocks"
        start = time.process_time()
        forecast = _forecast(panel.train, options, blocks=blocks)
        report.add(f"{name} fit and forecast CPU seconds", time.process_time() - start)
        _errors(report, name, forecast, truth, scale, bars=bars)
        bars = (None, None)
    return report.finish(check=options.check)


def _forecast(train: pd.DataFrame, options: argparse.Namespace, *, blocks: str) -> Array:
    with stack(blocks) as shape:
        forecaster = XLSTMForecaster(
            HORIZON,
            quantiles=(0.5,),
            context_length=28 * DAY,
            patch_length=DAY,
            linear_length=7 * DAY,
            target_transform="log",  # the series are of all sizes, and none goes below 10
            dropout=0.0,
            learning_rate=3e-3,
            batch_size=128,
            max_steps=100 if options.quick else options.steps,
            validation_fraction=0.0,  # the last days tell the most about the next ones
            random_state=options.seed,
            device="cpu",
            **shape,
        ).fit(train)
    return forecaster.predict()["y"].to_numpy().reshape(-1, HORIZON, 1)


def _errors(
    report: Report,
    name: str,
    forecast: Array,
    truth: Array,
    scale: Array,
    *,
    bars: tuple[float | None, float | None] = (None, None),
) -> None:
    report.add(f"{name} sMAPE", smape(truth, forecast), most=bars[0])
    report.add(f"{name} MASE", mase(truth, forecast, scale=scale), most=bars[1])


if __name__ == "__main__":
    sys.exit(main())
