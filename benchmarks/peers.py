"""Beside NeuralForecast's xLSTM: cost of a training window and error, on the same data.

`python benchmarks/peers.py`: ETTh1, look-back 336, horizon 96, each channel a series. CPU seconds
of `fit` by the windows that it saw; errors on every 24th test window. Theirs trains for `--steps`
steps only, since each takes seconds. Needs the extra `peers`; one thread.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings

import numpy as np
import pandas as pd
import torch
from _data import Array, Split, load
from _report import Report
from numpy.typing import NDArray

from xlstm_ts import XLSTMForecaster
from xlstm_ts.evaluation import rolling_forecasts, targets

HORIZON, CONTEXT, STRIDE = 96, 336, 24
OURS = {"max_steps": 500, "batch_size": 64}
THEIR_WINDOWS = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps of NeuralForecast's training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="3 steps of theirs, 50 of ours")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    if options.quick:
        options.steps = 3
    torch.set_num_threads(1)
    split = load("ETTh1")
    origins = split.origins(HORIZON, stride=STRIDE)
    truth = targets(split.z, origins=origins, horizon=HORIZON)
    report = Report()
    ours, our_error = _ours(report, split, origins, truth, options)
    try:
        theirs, their_error = _theirs(report, split, origins, truth, options)
    except ImportError as err:
        report.note(f"NeuralForecast is not installed ({err}): pip install 'xlstm-ts[peers]'")
        return report.finish(check=options.check)
    barred = not options.quick
    report.add("their CPU time of a window / ours", theirs / ours, least=20 if barred else None)
    report.add("our MSE / theirs", our_error / their_error, most=1 if barred else None)
    return report.finish(check=options.check)


def _ours(
    report: Report,
    split: Split,
    origins: NDArray[np.int64],
    truth: Array,
    options: argparse.Namespace,
) -> tuple[float, float]:
    """Return CPU seconds of a window, and the MSE."""
    settings = OURS | ({"max_steps": 50} if options.quick else {})
    forecaster = XLSTMForecaster(
        HORIZON,
        quantiles=(0.5,),
        context_length=CONTEXT,
        patch_length=24,
        validation_fraction=split.validation / split.known,
        random_state=options.seed,
        device="cpu",
        **settings,
    )
    start = time.process_time()
    forecaster.fit(split.z[: split.known])
    seconds = time.process_time() - start
    windows = forecaster.history_[-1].step * settings["batch_size"]
    weights = sum(weight.numel() for weight in forecaster.model_.parameters())
    forecast = rolling_forecasts(
        forecaster.model_, split.z, origins=origins, context_length=CONTEXT
    )[..., 0]
    return _add(report, "xlstm-ts", seconds, windows, weights, forecast, truth)


def _theirs(
    report: Report,
    split: Split,
    origins: NDArray[np.int64],
    truth: Array,
    options: argparse.Namespace,
) -> tuple[float, float]:
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import xLSTM

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:  # Lightning writes its logs somewhere
        model = xLSTM(
            h=HORIZON,
            input_size=CONTEXT,
            loss=MAE(),
            max_steps=options.steps,
            windows_batch_size=THEIR_WINDOWS,
            random_seed=options.seed,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        peer = NeuralForecast(models=[model], freq="h")
        start = time.process_time()
        peer.fit(_long(split, 0, split.known))
        seconds = time.process_time() - start
        weights = sum(weight.numel() for weight in peer.models[0].parameters())
        forecast = np.stack(
            [
                peer.predict(df=_long(split, origin - CONTEXT, origin))["xLSTM"]
                .to_numpy()
                .reshape(-1, HORIZON)
                .T
                for origin in origins
            ]
        )
    windows = options.steps * THEIR_WINDOWS
    return _add(report, "NeuralForecast xLSTM", seconds, windows, weights, forecast, truth)


def _long(split: Split, start: int, stop: int) -> pd.DataFrame:
    frame = pd.DataFrame(split.z[start:stop], split.index[start:stop])
    long = frame.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    return long[["unique_id", "ds", "y"]]


def _add(
    report: Report,
    name: str,
    seconds: float,
    windows: int,
    weights: int,
    forecast: Array,
    truth: Array,
) -> tuple[float, float]:
    mse = float(np.square(forecast - truth).mean())
    report.add(f"{name} fit CPU seconds", seconds)
    report.add(f"{name} windows", windows)
    report.add(f"{name} milliseconds of a window", 1e3 * seconds / windows)
    report.add(f"{name} parameters", weights)
    report.add(f"{name} MSE", mse)
    report.add(f"{name} MAE", float(np.abs(forecast - truth).mean()))
    return seconds / windows, mse


if __name__ == "__main__":
    sys.exit(main())
