"""Do intervals hold as often as they say? Split conformal and online ones, on real data.

`python benchmarks/coverage.py`: ETTh1 (horizon 96, all test windows, and a stream of the same
months whose intervals follow) and M4 Hourly (48 hours after each of 414 series), at nominal 0.8
and 0.9. One thread.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from _data import Array, load
from _report import Report

from xlstm_ts import XLSTMForecaster
from xlstm_ts.calibration import OnlineIntervals, intervals
from xlstm_ts.datasets.loaders import fetch_m4
from xlstm_ts.evaluation import rolling_forecasts, targets

DAY = 24
COVERAGES = (0.8, 0.9)
POINTS = 0.02  # that a coverage may lie off its nominal value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", default=["ETTh1", "M4"], choices=["ETTh1", "M4"])
    parser.add_argument("--quick", action="store_true", help="100 steps")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report()
    for name in options.data:
        {"ETTh1": _ett, "M4": _m4}[name](report, options)
    return report.finish(check=options.check)


def _ett(report: Report, options: argparse.Namespace) -> None:
    split = load("ETTh1")
    forecaster = XLSTMForecaster(
        96,
        context_length=21 * DAY,
        patch_length=DAY,
        validation_fraction=split.validation / split.known,
        max_steps=100 if options.quick else 500,
        random_state=options.seed,
        device="cpu",
    ).fit(split.z[: split.known])
    origins = split.origins(96)
    forecasts = rolling_forecasts(
        forecaster.model_, split.z, origins=origins, context_length=forecaster.context_length_
    )
    truth = targets(split.z, origins=origins, horizon=96)
    median = forecaster.model_.config.median
    for coverage in COVERAGES:
        bounds = intervals(forecasts, forecaster.calibration_, median=median, coverage=coverage)
        _add(report, "ETTh1, split conformal", coverage, bounds, truth, barred=not options.quick)
        online = OnlineIntervals(forecaster.calibration_, median=median, coverage=coverage)
        # Each reading first judges the bounds that were given of it.
        readings = split.z[origins - 1]
        bounds = np.stack([online.step(*each) for each in zip(readings, forecasts, strict=True)])
        _add(report, "ETTh1, online", coverage, bounds, truth, barred=not options.quick)


def _m4(report: Report, options: argparse.Namespace) -> None:
    panel = fetch_m4("Hourly")
    forecaster = XLSTMForecaster(
        48,
        context_length=21 * DAY,
        patch_length=DAY,
        linear_length=7 * DAY,
        target_transform="log",
        dropout=0.0,
        learning_rate=3e-3,
        batch_size=128,
        max_steps=100 if options.quick else 1500,
        # A tail of two days knows two days of the week, and the test hours are others.
        validation_fraction=0.3,
        random_state=options.seed,
        device="cpu",
    ).fit(panel.train)
    truth = panel.test["y"].to_numpy().reshape(-1, 48, 1)
    for coverage in COVERAGES:
        frame = forecaster.predict_interval(coverage=coverage)
        bounds = frame[["lower", "upper"]].to_numpy().reshape(-1, 48, 1, 2)
        _add(
            report, "M4 Hourly, split conformal", coverage, bounds, truth, barred=not options.quick
        )


def _add(
    report: Report, name: str, coverage: float, bounds: Array, truth: Array, *, barred: bool
) -> None:
    inside = (bounds[..., 0] <= truth) & (truth <= bounds[..., 1])
    off = abs(float(inside.mean()) - coverage)
    report.add(f"{name}, coverage at {coverage}", float(inside.mean()))
    report.add(f"{name}, points off {coverage}", off, most=POINTS if barred else None)


if __name__ == "__main__":
    sys.exit(main())
