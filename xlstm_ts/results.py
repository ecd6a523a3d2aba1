"""What a backtest gave: forecasts, what came, and the table of errors."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts import metrics
from xlstm_ts.metrics import Floats
from xlstm_ts.panels import Panel, TimeSeries

# What has a row for each origin, and a channel on its third axis.
ARRAYS = ("quantiles", "truth", "naive", "seasonal_naive")


@dataclass(frozen=True, kw_only=True, eq=False)
class Backtest:
    """Forecasts from N origins along one series or S of a panel, and what came.

    Parameters
    ----------
    name : str
        Class of the estimator.
    panel : Panel
        All readings of the series that were judged; a single one has the key None.
    owners : ndarray of int, shape (N,)
        Number of the series that each origin is of, in the order of the panel.
    origins : ndarray of int, shape (N,)
        Readings of its series that are known at each origin, forecast are the next H.
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
    scale : ndarray of float64, shape (S, C)
        What MASE divides by, of the readings of each series before its first origin.
    """

    name: str
    panel: Panel
    owners: NDArray[np.int64]
    origins: NDArray[np.int64]
    levels: tuple[float, ...]
    quantiles: Floats
    truth: Floats
    naive: Floats
    seasonal_naive: Floats
    season: int
    scale: Floats

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the C channels."""
        return self.panel.channels

    @property
    def series(self) -> tuple[Hashable, ...]:
        """Keys of the S series; None of one that came by itself."""
        return tuple(self.panel.series)

    @property
    def index(self) -> pd.Index[Any]:
        """Times of the whole series.

        Raises
        ------
        ValueError
            Where there are several; `select` one.
        """
        return self.panel.series[self._key(None)].index

    @property
    def title(self) -> str:
        """What a picture calls it: the channels, and in brackets the keys of named series."""
        keys = [", ".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in self.series]
        names = ", ".join(self.channels)
        return names if self.panel.is_single else f"{names} ({'; '.join(keys)})"

    @property
    def forecasts(self) -> Floats:
        """Point forecasts of the estimator, `(N, H, C)`: the quantile nearest to the median."""
        return self.quantiles[..., int(np.abs(np.subtract(self.levels, 0.5)).argmin())]

    @property
    def times(self) -> pd.Index[Any]:
        """Time of the first reading that each origin forecasts, length N."""
        parts = zip(self.panel, self._origins(), strict=True)
        first, *others = (one.index[origins] for one, origins in parts)
        return first.append(others)

    @property
    def compared(self) -> Floats:
        """Readings that errors are taken of, `(N, H, C)`: NaN where any forecast is unknown."""
        unknown = np.isnan(self.naive + self.seasonal_naive + self.forecasts)
        return np.where(unknown, np.nan, self.truth)

    def points(self) -> dict[str, Floats]:
        """Return the point forecasts `(N, H, C)` of every forecaster by its name."""
        named = {"naive": self.naive, "seasonal-naive": self.seasonal_naive}
        return {self.name: self.forecasts, **named}

    def frame(self) -> pd.DataFrame:
        """Return the forecasts labelled as the input was, one row for each origin and time.

        Returns
        -------
        DataFrame
            What `XLSTMForecaster.predict_quantiles` gives from each origin, with one more level of
            the index, or column of a long frame, before the time: `origin`, the time of the first
            reading that is forecast. An array counts its readings.
        """
        panel, like = self.panel, self._like()
        *levels, time = like.index.names
        index: Any = pd.MultiIndex.from_arrays(
            [[]] * (len(levels) + 2), names=[*levels, "origin", time]
        )
        known = {
            _row_key(key, one.index[int(origin)]): TimeSeries(
                values=one.values[:origin], index=one.index[:origin]
            )
            for (key, one), origins in zip(panel.series.items(), self._origins(), strict=True)
            for origin in origins
        }
        rows = replace(panel, series=known, like=like.set_axis(index))
        return pd.DataFrame(rows.restore_quantiles(list(self.quantiles), self.levels))

    def select(self, channel: str | None = None, *, series: Hashable = None) -> Backtest:
        """Return the same of one channel alone, of one series alone, or of both.

        Parameters
        ----------
        channel : str, optional
            Name of the channel; without it all.
        series : hashable, optional
            Key of the series, as it is in `series`; without it all.

        Raises
        ------
        ValueError
            Where there is no such channel or series.
        """
        result = self if series is None else self._of_series(self._key(series))
        return result if channel is None else result._of_channel(channel)

    def single(self, channel: str | None = None, *, series: Hashable = None) -> Backtest:
        """Return the same of one channel, by default the first, of one series.

        Raises
        ------
        ValueError
            Where there is no such channel or series, or there are several series and none is named.
        """
        name = self.channels[0] if channel is None else channel
        return self.select(name, series=self._key(series))

    def table(self) -> pd.DataFrame:
        """Return the errors: one row a forecaster, one column a metric.

        Returns
        -------
        DataFrame
            Rows are the estimator, naive and seasonal-naive; columns MSE, MAE, RMSE (units of the
            readings), MASE, sMAPE, WQL and coverage, with the nominal share of the outermost
            quantiles in its name (see `xlstm_ts.metrics`). MASE and sMAPE are means over the
            readings of each series, averaged over series, as in M4; a series with none to compare,
            or without a scale, does not count. Every other mean is over all readings, whatever
            their channel and series: where these differ in units, `select` one or compare by MASE.
            Only readings count that came and that every forecaster could forecast. The naive
            forecasts have no quantiles: for WQL the point stands for each of them, and coverage is
            NaN.

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
            **self._means_over_series(truth, point),
            "WQL": metrics.wql(truth, every_level, levels=self.levels),
            f"coverage ({nominal:g})": metrics.coverage(truth, quantiles),
        }

    def _means_over_series(self, truth: Floats, point: Floats) -> dict[str, float]:
        """Return MASE and sMAPE of each series, averaged over those that have readings."""
        ends = np.flatnonzero(np.diff(self.owners)) + 1
        errors = [
            (metrics.mase(came, guess, scale=scale), metrics.smape(came, guess))
            for came, guess, scale in zip(
                np.split(truth, ends), np.split(point, ends), self.scale, strict=True
            )
            if not np.isnan(came).all()
        ]
        scaled, relative = np.array(errors).T
        scaled = scaled[~np.isnan(scaled)]
        mean = float(scaled.mean()) if len(scaled) else np.nan
        return {"MASE": mean, "sMAPE": float(relative.mean())}

    def _key(self, series: Hashable) -> Hashable:
        """Return the key of a series that is there; of the only one where none is named."""
        keys = self.series
        if series is None and len(keys) == 1:
            return keys[0]
        if series not in keys:
            raise ValueError(
                f"`series` must be one of {', '.join(map(repr, islice(keys, 5)))}"
                f"{f', ... ({len(keys)} in all)' if len(keys) > 5 else ''}, got {series!r}."
            )
        return series

    def _origins(self) -> list[NDArray[np.int64]]:
        """Return the origins of each series."""
        return np.split(self.origins, np.flatnonzero(np.diff(self.owners)) + 1)

    def _of_series(self, key: Hashable) -> Backtest:
        number = self.series.index(key)
        rows = self.owners == number
        return replace(
            self,
            panel=replace(self.panel, series={key: self.panel.series[key]}),
            owners=np.zeros(rows.sum(), np.int64),
            scale=self.scale[[number]],
            **{name: getattr(self, name)[rows] for name in ("origins", *ARRAYS)},
        )

    def _of_channel(self, channel: str) -> Backtest:
        if channel not in self.channels:
            known = ", ".join(self.channels)
            raise ValueError(f"`channel` must be one of {known}, got {channel!r}.")
        which = [self.channels.index(channel)]
        series = {
            key: TimeSeries(values=one.values[:, which], index=one.index)
            for key, one in self.panel.series.items()
        }
        like = self._like()
        like = like.iloc[:, which] if isinstance(like, pd.DataFrame) else like
        return replace(
            self,
            panel=replace(self.panel, series=series, channels=(channel,), like=like),
            scale=self.scale[:, which],
            **{name: getattr(self, name)[:, :, which] for name in ARRAYS},
        )

    def _like(self) -> pd.Series[Any] | pd.DataFrame:
        """Return an empty object with the names of what came in; an array has the given ones."""
        like = self.panel.like
        if not isinstance(like, np.ndarray):
            return like
        index = pd.MultiIndex.from_arrays([[]] * (like.ndim - 1)) if like.ndim == 3 else None
        if like.ndim == 1:
            return pd.Series(index=index, dtype=float)
        return pd.DataFrame(index=index, columns=list(self.channels), dtype=float)


def _row_key(key: Hashable, origin: Hashable) -> Hashable:
    """Return the key of a series with an origin as its last part."""
    if key is None:
        return origin
    return (*key, origin) if isinstance(key, tuple) else (key, origin)
