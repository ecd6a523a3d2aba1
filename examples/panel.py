"""One model for 414 series, M4 Hourly, two days ahead; and for one that it has never seen.

`python examples/panel.py`: downloaded once by `fetch_m4`.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from xlstm_ts import XLSTMForecaster
from xlstm_ts.datasets.loaders import fetch_m4

HORIZON, SEASON = 48, 24


def smape(truth: pd.DataFrame, forecast: pd.DataFrame) -> float:
    """Return the mean symmetric error in percent over all series of long frames."""
    both = truth.merge(forecast, on=["unique_id", "ds"], suffixes=("", "_hat"))
    error = (both["y"] - both["y_hat"]).abs() / (both["y"].abs() + both["y_hat"].abs())
    return float(200 * error.mean())


def run(train: pd.DataFrame, test: pd.DataFrame, *, steps: int) -> dict[str, float]:
    """Fit one model to all series but the last, and judge its forecasts of all of them."""
    unseen = train["unique_id"].iloc[-1]
    known = train[train["unique_id"] != unseen]
    model = XLSTMForecaster(
        HORIZON, patch_length=SEASON, target_transform="log", max_steps=steps, random_state=0
    ).fit(known)
    naive = train.groupby("unique_id").tail(SEASON)
    naive = pd.concat([naive.assign(ds=naive["ds"] + SEASON * k) for k in (1, 2)])
    new = train[train["unique_id"] == unseen]
    forecast = pd.concat([model.predict(), model.predict(y=new)])
    is_new = test["unique_id"] == unseen
    return {
        "series": float(train["unique_id"].nunique()),
        "sMAPE": smape(test, forecast),
        "sMAPE, seasonal-naive": smape(test, naive),
        f"sMAPE of {unseen}, never seen": smape(test[is_new], forecast),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150, help="steps of the training")
    parser.add_argument("--series", type=int, default=414, help="how many of the series")
    options = parser.parse_args()
    panel = fetch_m4("Hourly")
    names = panel.train["unique_id"].unique()[: options.series]
    train, test = (part[part["unique_id"].isin(names)] for part in (panel.train, panel.test))
    for name, value in run(train, test, steps=options.steps).items():
        print(f"{name}: {np.round(value, 2):g}")


if __name__ == "__main__":
    main()
