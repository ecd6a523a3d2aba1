"""Search for good parameters with Optuna, each trial judged by a backtest.

    pip install optuna
    python examples/tune_with_optuna.py

The last weeks take no part in the search: only they can say how good its choice is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from xlstm_ts import XLSTMForecaster, backtest
from xlstm_ts.datasets.synthetic import make_sensor_stream

if TYPE_CHECKING:
    from optuna import Trial

HORIZON, HELD_OUT, WINDOWS = 24, 336, 10


def suggest(trial: Trial) -> XLSTMForecaster:
    """Return a forecaster with the parameters of a trial."""
    return XLSTMForecaster(
        HORIZON,
        blocks=trial.suggest_categorical("blocks", ["m", "mm", "ms"]),
        d_model=trial.suggest_categorical("d_model", [16, 32, 64]),
        learning_rate=trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        dropout=trial.suggest_float("dropout", 0.0, 0.4),
        max_steps=trial.suggest_int("max_steps", 50, 300, step=50),
        random_state=0,
    )


def objective(trial: Trial, y: pd.DataFrame) -> float:
    """Return the MASE of a trial: below 1 it beats seasonal-naive in its own training part."""
    table = backtest(suggest(trial), y, n_windows=WINDOWS).table()
    return float(table.loc["XLSTMForecaster", "MASE"])


def main() -> None:
    """Search, then judge the best parameters on what the search has not seen."""
    try:
        import optuna
    except ImportError as err:
        raise SystemExit("This example needs Optuna: pip install optuna.") from err
    y = make_sensor_stream(n_faults=0, random_state=0).readings
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: objective(trial, y.iloc[:-HELD_OUT]), n_trials=20)
    best = suggest(optuna.trial.FixedTrial(study.best_params))
    print(study.best_params)
    print(backtest(best, y, start=len(y) - HELD_OUT).table().round(3))


if __name__ == "__main__":
    main()
