"""Accuracy with missing readings, in training and in the context alike: it degrades smoothly.

`python benchmarks/missing.py`: ETTh1, horizon 96. Readings of each channel are taken away at
random, alone or in blocks of a day; the forecast is judged by all of them. One thread.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from _data import Array, Split, load
from _report import Report

from xlstm_ts import XLSTMForecaster
from xlstm_ts.evaluation import rolling_forecasts, targets

HORIZON, CONTEXT, DAY = 96, 504, 24
# The MSE may grow by this factor at each share that is missing.
BARS = {0.1: 1.05, 0.3: 1.1, 0.5: 1.2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 steps, few windows, one share")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load("ETTh1")
    report = Report()
    whole = _mse(split, split.z, options)
    report.add("nothing missing, MSE", whole)
    for block in (1, DAY):
        for share, most in list(BARS.items())[-1 if options.quick else 0 :]:
            z = _take_away(split.z, share=share, block=block, seed=options.seed)
            name = f"{share:.0%} missing {'at random' if block == 1 else 'in blocks of a day'}"
            mse = _mse(split, z, options)
            report.add(f"{name}, MSE", mse)
            bar = None if options.quick else most
            report.add(f"{name}, MSE / MSE with nothing missing", mse / whole, most=bar)
    return report.finish(check=options.check)


def _take_away(z: Array, *, share: float, block: int, seed: int) -> Array:
    """Return the readings with a share of them missing, in blocks that may overlap."""
    rng = np.random.default_rng(seed)
    # Where a reading is missing if any of `block` starts before it is drawn.
    rate = 1 - (1 - share) ** (1 / block)
    starts = np.pad(rng.random(z.shape) < rate, ((block - 1, 0), (0, 0)))
    hidden = np.lib.stride_tricks.sliding_window_view(starts, block, axis=0).any(-1)
    return np.where(hidden, np.nan, z)


def _mse(split: Split, z: Array, options: argparse.Namespace) -> float:
    """Fit on readings with gaps, forecast from them, compare with all readings."""
    forecaster = XLSTMForecaster(
        HORIZON,
        quantiles=(0.5,),
        context_length=CONTEXT,
        patch_length=DAY,
        validation_fraction=split.validation / split.known,
        max_steps=100 if options.quick else 500,
        random_state=options.seed,
        device="cpu",
    ).fit(z[: split.known])
    origins = split.origins(HORIZON, stride=24 if options.quick else 1)
    forecast = rolling_forecasts(forecaster.model_, z, origins=origins, context_length=CONTEXT)
    truth = targets(split.z, origins=origins, horizon=HORIZON)
    return float(np.square(forecast[..., 0] - truth).mean())


if __name__ == "__main__":
    sys.exit(main())
