"""xLSTM for time series and streams: train in parallel, serve one reading at a time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_ts.anomaly_plots import AnomalyDisplay as AnomalyDisplay
    from xlstm_ts.backtesting import backtest as backtest
    from xlstm_ts.detector import XLSTMAnomalyDetector as XLSTMAnomalyDetector
    from xlstm_ts.diagnostics import BacktestDisplay as BacktestDisplay
    from xlstm_ts.forecaster import XLSTMForecaster as XLSTMForecaster
    from xlstm_ts.plotting import ForecastDisplay as ForecastDisplay
    from xlstm_ts.regressor import XLSTMRegressor as XLSTMRegressor
    from xlstm_ts.residuals import ResidualsDisplay as ResidualsDisplay

__version__ = "0.1.0"

# Loaded on first use, so that `xlstm_ts.streaming` runs where there is no torch.
# No name here is that of a module: once imported, the module would take its place.
_PUBLIC = {
    "AnomalyDisplay": "xlstm_ts.anomaly_plots",
    "BacktestDisplay": "xlstm_ts.diagnostics",
    "ForecastDisplay": "xlstm_ts.plotting",
    "ResidualsDisplay": "xlstm_ts.residuals",
    "XLSTMAnomalyDetector": "xlstm_ts.detector",
    "XLSTMForecaster": "xlstm_ts.forecaster",
    "XLSTMRegressor": "xlstm_ts.regressor",
    "backtest": "xlstm_ts.backtesting",
}

__all__ = [
    "AnomalyDisplay",
    "BacktestDisplay",
    "ForecastDisplay",
    "ResidualsDisplay",
    "XLSTMAnomalyDetector",
    "XLSTMForecaster",
    "XLSTMRegressor",
    "__version__",
    "backtest",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
