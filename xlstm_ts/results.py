"""What a backtest gave: forecasts, what came, and the table of errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts import metrics
from xlstm_ts.metrics import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Backtest:
    """Forecasts from N origins along a series, and what came.

    Parameters
    ----------
    name : str
        Class of the estimator.
    channels : tuple of str
        Names of the C channels.
    index : pandas.Index
        Times of the whole series.
    origins : ndarray of int, shape (N,)
        Readings known at each origin: the forecast is of `index[origin : origin + H]`.
    levels : tuple of float
        The Q levels of the quantiles.
    quantiles : ndarray of float64, shape (N, H, C, Q)
        Forecasts of the estimator at each level, in units of the readings.
    truth : ndarray of float64, shape (N, H, C)
        The readings that came; NaN is missing.
    naive, seasonal_naive : ndarray of float64, shape (N, H, C)
        The last reading and the last season before each origin, repeated. Gaps in them are filled
        from the reading or season before; NaN where there is none.
    season : int
        Readings in a season, as the first fit found it.
    scale : ndarray of float64, shape (C,)
        What MASE divides by, of the readings before the first origin.
    """

    name: str
    channels: tuple[str, ...]
    index: pd.Index[Any]
    origins: NDArray[np.int64]
    levels: tuple[float, ...]
    quantiles: Floats
    truth: Floats
    naive: Floats
    seasonal_naive: Floats
    season: int
    scale: Floats

    @property
    def forecasts(self) -> Floats:
        """Point forecasts of the estimator, `(N, H, C)`: the quantile nearest to the median."""
        return self.quantiles[..., int(np.abs(np.subtract(self.levels, 0.5)).argmin())]

    @property
    def times(self) -> pd.Index[Any]:
        """Time of the first reading that each origin forecasts, length N."""
        return self.index[self.origins]

    @property
    def compared(self) -> Floats:
        """Readings that errors are taken of, `(N, H, C)`: NaN where a naive forecast is unknown."""
        return np.where(np.isnan(self.naive + self.seasonal_naive), np.nan, self.truth)

    def points(self) -> dict[str, Floats]:
        """Return the point forecasts `(N, H, C)` of every forecaster by its name."""
        named = {"naive": self.naive, "seasonal-naive": self.seasonal_naive}
        return {self.name: self.forecasts, **named}

    def select(self, channel: str) -> Backtest:
        """Return the same of one channel alone.

        Raises
        ------
        ValueError
            Where there is no such channel.
        """
        if channel not in self.channels:
            known = ", ".join(self.channels)
            raise ValueError(f"`channel` must be one of {known}, got {channel!r}.")
        which = [self.channels.index(channel)]
        arrays = ("quantiles", "truth", "naive", "seasonal_naive")
        parts: dict[str, Any] = {name: getattr(self, name)[:, :, which] for name in arrays}
        return replace(self, channels=(channel,), scale=self.scale[which], **parts)

    def table(self) -> pd.DataFrame:
        """Return the errors: one row a forecaster, one column a metric.

        Returns
        -------
        DataFrame
            Rows are the estimator, naive and seasonal-naive; columns MSE, MAE, RMSE (units of the
            readings), MASE, sMAPE, WQL and coverage, with the nominal share of the outermost
            quantiles in its name (see `xlstm_ts.metrics`). Every mean is over all readings that
            came and that every forecaster could forecast, whatever their channel: where channels
            differ in units, `select` one or compare by MASE. The naive forecasts have no
            quantiles: for WQL the point stands for each of them, and coverage is NaN.

        Raises
        ------
        SeriesError
            Where no reading can be compared.
        """
        truth = self.compared
        rows = {name: self._row(truth, point[..., None]) for name, point in self.points().items()}
        rows[self.name] = self._row(truth, self.quantiles, point=self.forecasts)
        return pd.DataFrame.from_dict(rows, orient="index")

    def _row(
        self, truth: Floats, quantiles: Floats, *, point: Floats | None = None
    ) -> dict[str, float]:
        point = quantiles[..., 0] if point is None else point
        nominal = self.levels[-1] - self.levels[0]
        every_level = np.broadcast_to(quantiles, (*truth.shape, len(self.levels)))
        return {
            "MSE": metrics.mse(truth, point),
            "MAE": metrics.mae(truth, point),
            "RMSE": metrics.rmse(truth, point),
            "MASE": metrics.mase(truth, point, scale=self.scale),
            "sMAPE": metrics.smape(truth, point),
            "WQL": metrics.wql(truth, every_level, levels=self.levels),
            f"coverage ({nominal:g})": metrics.coverage(truth, quantiles),
        }
