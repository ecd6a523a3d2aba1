"""What a fitted forecaster does: forecasts, their quantiles and intervals, and their score."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.calibration import intervals
from xlstm_ts.config import lowest
from xlstm_ts.evaluation import mean_skill, rolling_forecasts
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.exogenous import Covariates, Exogenous
from xlstm_ts.frames import read_panel
from xlstm_ts.panels import Floats, Like, LongColumns, Panel, TimeSeries, join_series
from xlstm_ts.parquet.panel import ParquetPanel
from xlstm_ts.statics import Static
from xlstm_ts.steps import follows_on
from xlstm_ts.transforms import check_domain

if TYPE_CHECKING:
    from typing_extensions import Self

    from xlstm_ts.calibration import Calibration
    from xlstm_ts.model import XLSTM

Series = ArrayLike | pd.Series | pd.DataFrame


class Prediction:
    """The methods of a forecaster that need a fit and train nothing."""

    id_column: str
    time_column: str
    target_column: str
    model_: XLSTM
    context_: Panel
    context_length_: int
    season_length_: int
    pooled_: bool
    calibration_: Calibration
    covariates_: Covariates

    def predict(
        self,
        y: Series | None = None,
        X: Exogenous | None = None,
        *,
        static: Static | None = None,
    ) -> Like:
        """Forecast the next `horizon` readings: the quantile nearest to the median.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context of any length, with the channels and the step of the training series, of
            these or of other series; without one the forecast goes on from the end of those.
            Nothing is trained.
        X, static : optional
            Covariates, as in `fit`: with `y` of its times and, where columns are known ahead, of
            the `horizon` times after it; without `y` of these alone. `static` is needed for series
            that were not in the fit.

        Returns
        -------
        array (H,), (H, C) or (S, H, C), Series or DataFrame
            The same kind of object as came in, with the times that follow.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `y` cannot be used, has other channels, or another step, or `X` lacks what is
            needed.
        """
        check_is_fitted(self)
        panel = self._context(y, X, static)
        median = self.model_.config.median
        return panel.restore([self._forecast(one)[..., median] for one in panel])

    def predict_quantiles(
        self,
        y: Series | None = None,
        X: Exogenous | None = None,
        *,
        static: Static | None = None,
    ) -> Like:
        """Forecast all quantile levels of the next `horizon` readings.

        Parameters
        ----------
        y, X, static : optional
            A new context and its covariates, as for `predict`.

        Returns
        -------
        array (H, Q), (H, C, Q) or (S, H, C, Q), or DataFrame
            For a Series or a long frame one column a level, for a wide frame columns
            (channel, level). Levels never cross.
        """
        check_is_fitted(self)
        panel = self._context(y, X, static)
        levels = self.model_.config.quantiles
        return panel.restore_quantiles([self._forecast(one) for one in panel], levels)

    def predict_interval(
        self,
        y: Series | None = None,
        X: Exogenous | None = None,
        *,
        static: Static | None = None,
        coverage: float = 0.9,
    ) -> Like:
        """Forecast an interval for each of the next `horizon` readings.

        The bounds are conformal: as wide as the errors of forecasts of the validation tail demand
        (see `xlstm_ts.calibration`). Where the future is like the tail, each reading lies between
        its bounds with a probability of at least `coverage`. Where it drifts,
        `xlstm_ts.calibration.OnlineIntervals` follows.

        Parameters
        ----------
        y, X, static : optional
            A new context and its covariates, as for `predict`.
        coverage : float, default=0.9
            Share of readings that are to lie inside, in (0, 1).

        Returns
        -------
        array (H, 2), (H, C, 2) or (S, H, C, 2), or DataFrame
            As `predict_quantiles` gives, with "lower" and "upper" in place of levels.

        Raises
        ------
        ValueError
            Where `coverage` is out of range, the tail has too few forecasts for it, or many series
            of different levels were trained with a single quantile, which has no width.
        """
        check_is_fitted(self)
        panel = self._context(y, X, static)
        median = self.model_.config.median
        if self.pooled_ and len(self.model_.config.quantiles) == 1:
            raise ValueError("Intervals for many series need at least two `quantiles`; fit again.")
        bounds = [
            intervals(self._forecast(one), self.calibration_, median=median, coverage=coverage)
            for one in panel
        ]
        # No reading lies below what its logarithm allows.
        bounds = [each.clip(lowest(self.model_.config.target_transform)) for each in bounds]
        return panel.restore_quantiles(bounds, ("lower", "upper"))

    def score(
        self, y: Series, X: Exogenous | None = None, *, static: Static | None = None
    ) -> float:
        """Return the skill over the seasonal-naive forecast: 1 is perfect, 0 is no better.

        Forecasts are made every `horizon` readings, each from the readings before it, and the
        score is 1 - MAE / MAE(seasonal naive), averaged over channels and series.

        Parameters
        ----------
        y : array, Series or DataFrame
            Readings with the channels and the step of the training series. Where their times
            follow on those of the training series, its end is the context of the first forecasts;
            otherwise `y` begins with `context_length_` readings of context. Nothing is scored
            before a whole season of readings, which the seasonal-naive forecast needs.
        X, static : optional
            Covariates of these readings, as in `fit`.

        Returns
        -------
        float
            The skill; higher is better, as scikit-learn's searches expect.
        """
        check_is_fitted(self)
        median = self.model_.config.median
        return mean_skill(
            self._scored(y, X, static),
            forecast=lambda one, origins: self._rolling(one, origins)[..., median],
            # The forecast needs a context before it, the seasonal-naive one a whole season.
            first=max(self.context_length_, self.season_length_),
            horizon=self.model_.config.horizon,
            season=self.season_length_,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.allow_nan = True
        return tags

    def _long_columns(self) -> LongColumns:
        return LongColumns(self.id_column, self.time_column, self.target_column)

    def _context(
        self,
        y: Series | None,
        X: Exogenous | None,
        static: Static | None,
        *,
        ahead: int | None = None,
    ) -> Panel:
        """Return the series to forecast from, with what is known `horizon` times ahead of them."""
        long, known = self._long_columns(), self.context_
        if y is None and known.is_example:
            raise SeriesError(
                "After a fit on Parquet files no context is kept; give one as `y`, or by `update`, "
                "or forecast all by xlstm_ts.parquet.predict_parquet."
            )
        _refuse_files(y)
        panel = known if y is None else read_panel(y, long=long, known=known)
        check_domain(panel, self.model_.config.target_transform)
        ahead = self.model_.config.horizon if ahead is None else ahead
        return self.covariates_.attach(
            panel, X, static, long=long, ahead=ahead, only_ahead=y is None, known=known
        )

    def update(
        self, y: Series, X: Exogenous | None = None, *, static: Static | None = None
    ) -> Self:
        """Take in new readings without training: `predict()` then goes on from their end.

        Parameters
        ----------
        y : array, Series or DataFrame
            Readings after those that are known, of these or of new series. Times between the two
            are missing readings; where readings are only counted they follow at once.
        X, static : optional
            Covariates of these readings, and of new series, as in `fit`.

        Returns
        -------
        XLSTMForecaster
            The estimator itself; it forecasts as it would from all readings in one context.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `y` cannot be used, or does not come after what is known.
        """
        check_is_fitted(self)
        new = self._read_new(y, X, static)
        self.context_ = self.context_.extended(new).last(self.context_length_)
        return self

    def _read_new(self, y: Series, X: Exogenous | None, static: Static | None) -> Panel:
        """Return series that go on from those that are known, gaps between filled."""
        long, known = self._long_columns(), self.context_
        _refuse_files(y)
        panel = read_panel(y, long=long, known=known, may_be_silent=True)
        check_domain(panel, self.model_.config.target_transform)
        panel = known.bridged(panel, name="y")
        return self.covariates_.attach(panel, X, static, long=long, known=known)

    def _forecast(self, series: TimeSeries) -> Floats:
        """Return the quantile forecasts after the end of a series, `(H, C, Q)`."""
        forecast = self._rolling(series, np.array([len(series)]))[0]
        if np.isnan(forecast).any():
            warnings.warn(
                f"A series that ends at {series.index[-1]} has a channel without a reading in its "
                f"context of {self.context_length_}: its forecast is NaN.",
                SeriesWarning,
                stacklevel=4,
            )
        return forecast

    def _rolling(self, series: TimeSeries, origins: NDArray[np.int64]) -> Floats:
        return rolling_forecasts(
            self.model_,
            series.values,
            covariates=self.covariates_.table(series, ahead=self.model_.config.horizon),
            origins=origins,
            context_length=self.context_length_,
            own_units=self.pooled_,
        )

    def _scored(
        self, y: Series, X: Exogenous | None, static: Static | None
    ) -> Iterator[TimeSeries]:
        """Yield each series, after its context where it follows on that."""
        panel, context = self._context(y, X, static, ahead=0), self.context_
        for key, one in panel.series.items():
            before = context.kept.get(key)
            if before is not None and follows_on(one.index, before.index):
                yield join_series(before, one)
            else:
                yield one


def _refuse_files(y: object) -> None:
    if isinstance(y, ParquetPanel):
        raise SeriesError(
            "`y` is in Parquet files, which `fit` alone takes; forecast them by "
            "xlstm_ts.parquet.predict_parquet, or give a frame: pandas.read_parquet(...)."
        )
