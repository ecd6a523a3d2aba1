"""Forecast a transformer's oil temperature a day ahead, from its loads and the calendar.

`python examples/energy.py`: ETTh1, hourly, downloaded once by `fetch_ett`. The loads, known up to
now alone, make the errors no smaller here: what a covariate is worth has to be measured.
"""

from __future__ import annotations

import argparse

import pandas as pd

from xlstm_ts import XLSTMForecaster, backtest
from xlstm_ts.datasets.loaders import fetch_ett

HOURS = 24 * 30 * 8
TEST = 24 * 28


def compare(readings: pd.DataFrame, *, steps: int) -> pd.DataFrame:
    """Return the errors of forecasts with and without covariates, beside naive ones."""
    y, loads = readings["OT"], readings.drop(columns="OT")
    tables = {}
    for name, columns in {"alone": None, "with loads": loads}.items():
        forecaster = XLSTMForecaster(
            24, calendar=("hour", "dayofweek"), max_steps=steps, random_state=0
        )
        # Fits a clone to what precedes the last four weeks.
        table = backtest(forecaster, y, columns, start=y.index[-TEST], stride=24).table()
        tables[name] = table
    return pd.concat(tables)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    options = parser.parse_args()
    table = compare(fetch_ett("ETTh1")[:HOURS], steps=options.steps)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
