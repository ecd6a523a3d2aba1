"""The estimator: series in, forecasts out, in scikit-learn's manner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xlstm_ts import persistence
from xlstm_ts.calibration import calibrate_tails, intervals
from xlstm_ts.config import Channels
from xlstm_ts.evaluation import mean_skill, rolling_forecasts
from xlstm_ts.frames import Floats, Like, LongColumns, Panel, TimeSeries, read_panel
from xlstm_ts.model import XLSTM
from xlstm_ts.plans import plan_fit
from xlstm_ts.steps import follows_on
from xlstm_ts.training import Record, train
from xlstm_ts.units import standardise

Series = ArrayLike | pd.Series | pd.DataFrame


class XLSTMForecaster(BaseEstimator):  # type: ignore[misc]
    """Forecast the next `horizon` readings of every channel, with quantiles.

    Parameters
    ----------
    horizon : int, default=24
        Readings to forecast.
    quantiles : tuple of float, default=(0.1, 0.5, 0.9)
        Increasing levels in (0, 1). The one nearest to 0.5 is the point forecast; `(0.5,)` alone
        trains on the mean absolute error.
    context_length : int or "auto", default="auto"
        Readings that training windows and `predict` see; rounded down to whole patches. "auto"
        takes 512, or what the series allows.
    patch_length : int or "auto", default="auto"
        Readings in one token. "auto" takes the season of the index's step (24 for hourly data) or,
        without times, of the autocorrelation: alignment with the season is the strongest choice.
    channels : {"independent", "mixed"}, default="independent"
        Whether each channel is forecast from itself, with shared weights, or from all.
    blocks : str, default="mm"
        The stack: "m" is an mLSTM block, "s" an sLSTM block.
    d_model, n_heads : int, default=64, 4
        Width of the model and heads of each cell.
    expansion : int, default=1
        Width inside an mLSTM block in units of `d_model`. The paper's block has 2, which forecasts
        a little better and carries four times the state.
    linear_length : int, default=0
        Readings of a linear path beside the blocks; helps where patches miss the season.
    scaling_span : float or "auto", default="auto"
        Span of the causal mean and scale in readings. "auto" takes seven seasons.
    dropout : float, default=0.2
        Share of activations dropped in training.
    max_steps, batch_size : int, default=1000, 64
        Steps of the optimiser, and windows in each.
    learning_rate, weight_decay, gradient_clip : float, default=1e-3, 0.01, 1.0
        Of AdamW with warm-up and cosine.
    validation_fraction : float, default=0.1
        Share of the readings, from the end, on which the best weights are chosen; 0 trains on
        everything and keeps the last weights.
    patience : int or None, default=5
        Looks at the validation loss (every tenth of `max_steps`) without a better one after which
        training stops.
    id_column, time_column, target_column : str, default="unique_id", "ds", "y"
        Columns of a long frame: which series, when, and the reading.
    device : str, default="auto"
        A torch device; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None, default=None
        Makes a fit repeatable.
    verbose : int, default=0
        1 shows a progress bar with loss and validation loss.

    Attributes
    ----------
    model_ : XLSTM
        The trained model.
    context_ : Panel
        The end of each training series, from which `predict()` goes on.
    pooled_ : bool
        Whether many series share the weights. Each window of readings is then put in units of its
        own, so that levels may differ and series that were never seen can be forecast.
    channels_ : tuple of str
        Names of the channels.
    context_length_, season_length_ : int
        The context in use, and the season that was found.
    calibration_ : Calibration
        Errors of forecasts of the validation tail, from which intervals follow.
    history_ : list of Record
        Step, loss and validation loss at each look.

    References
    ----------
    M. Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, arXiv:2405.04517.

    Examples
    --------
    >>> from xlstm_ts import XLSTMForecaster
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> y = make_sensor_stream(1000, random_state=0).readings
    >>> forecaster = XLSTMForecaster(horizon=24, max_steps=20, random_state=0).fit(y)
    >>> forecaster.predict().shape == (24, y.shape[1])
    True
    """

    def __init__(
        self,
        horizon: int = 24,
        *,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        context_length: int | Literal["auto"] = "auto",
        patch_length: int | Literal["auto"] = "auto",
        channels: Channels = "independent",
        blocks: str = "mm",
        d_model: int = 64,
        n_heads: int = 4,
        expansion: int = 1,
        linear_length: int = 0,
        scaling_span: float | Literal["auto"] = "auto",
        dropout: float = 0.2,
        max_steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = 5,
        id_column: str = "unique_id",
        time_column: str = "ds",
        target_column: str = "y",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.horizon = horizon
        self.quantiles = quantiles
        self.context_length = context_length
        self.patch_length = patch_length
        self.channels = channels
        self.blocks = blocks
        self.d_model = d_model
        self.n_heads = n_heads
        self.expansion = expansion
        self.linear_length = linear_length
        self.scaling_span = scaling_span
        self.dropout = dropout
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.id_column = id_column
        self.time_column = time_column
        self.target_column = target_column
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, y: Series) -> XLSTMForecaster:
        """Train on one series or on a panel of them.

        Parameters
        ----------
        y : array (T,), (T, C) or (S, T, C), Series, or DataFrame
            Readings in the order of time, with one step throughout; NaN is missing. A frame is
            wide, one column a channel, or long (see `id_column`). In a MultiIndex the last level
            is the time and those before it name the series, which may differ in length.

        Returns
        -------
        XLSTMForecaster
            The estimator itself.

        Raises
        ------
        SeriesError
            Where `y` cannot be used (see `xlstm_ts.frames.read_panel`) or is too short.
        ValueError
            Where a parameter is out of range.
        TrainingError
            Where the loss becomes infinite or NaN; an earlier fit is kept.
        """
        panel = read_panel(y, long=self._long_columns())
        plan = plan_fit(self, panel)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        with torch.random.fork_rng():
            torch.manual_seed(seeds[0])
            model = XLSTM(plan.model)
            standard, units = standardise(panel, n_train=plan.n_train)
            if units is not None:
                model.set_units(*units)
            model.to(self._device())
            history = train(
                model,
                [torch.as_tensor(one).float() for one in standard],
                n_train=plan.n_train,
                config=plan.training,
                generator=torch.Generator().manual_seed(seeds[1]),
            )
        self.model_ = model
        self.history_: list[Record] = history
        self.context_length_ = plan.training.context_length
        self.season_length_ = plan.season
        self.channels_ = panel.channels
        self.pooled_ = not panel.is_single
        self.context_ = panel.last(self.context_length_)
        self.calibration_ = calibrate_tails(
            [one.values for one in panel],
            starts=plan.n_train,
            forecast=self._rolling,
            horizon=model.config.horizon,
            median=model.config.median,
        )
        return self

    def predict(self, y: Series | None = None) -> Like:
        """Forecast the next `horizon` readings: the quantile nearest to the median.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context of any length, with the channels and the step of the training series, of
            these or of other series; without one the forecast goes on from the end of those.
            Nothing is trained.

        Returns
        -------
        array (H,), (H, C) or (S, H, C), Series or DataFrame
            The same kind of object as came in, with the times that follow.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `y` cannot be used, has other channels, or another step.
        """
        check_is_fitted(self)
        panel = self._context(y)
        median = self.model_.config.median
        return panel.restore([self._forecast(one)[..., median] for one in panel])

    def predict_quantiles(self, y: Series | None = None) -> Like:
        """Forecast all quantile levels of the next `horizon` readings.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context, as for `predict`.

        Returns
        -------
        array (H, Q), (H, C, Q) or (S, H, C, Q), or DataFrame
            For a Series or a long frame one column a level, for a wide frame columns
            (channel, level). Levels never cross.
        """
        check_is_fitted(self)
        panel = self._context(y)
        levels = self.model_.config.quantiles
        return panel.restore_quantiles([self._forecast(one) for one in panel], levels)

    def predict_interval(self, y: Series | None = None, *, coverage: float = 0.9) -> Like:
        """Forecast an interval for each of the next `horizon` readings.

        The bounds are conformal: as wide as the errors of forecasts of the validation tail demand
        (see `xlstm_ts.calibration`). Where the future is like the tail, each reading lies between
        its bounds with a probability of at least `coverage`. Where it drifts,
        `xlstm_ts.calibration.OnlineIntervals` follows.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context, as for `predict`.
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
        panel = self._context(y)
        median = self.model_.config.median
        if self.pooled_ and len(self.model_.config.quantiles) == 1:
            raise ValueError("Intervals for many series need at least two `quantiles`; fit again.")
        bounds = [
            intervals(self._forecast(one), self.calibration_, median=median, coverage=coverage)
            for one in panel
        ]
        return panel.restore_quantiles(bounds, ("lower", "upper"))

    def score(self, y: Series) -> float:
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

        Returns
        -------
        float
            The skill; higher is better, as scikit-learn's searches expect.
        """
        check_is_fitted(self)
        median = self.model_.config.median
        return mean_skill(
            self._scored_values(y),
            forecast=lambda values, origins: self._rolling(values, origins)[..., median],
            # The forecast needs a context before it, the seasonal-naive one a whole season.
            first=max(self.context_length_, self.season_length_),
            horizon=self.model_.config.horizon,
            season=self.season_length_,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, weights and context to one file: numpy arrays and JSON, no pickle.

        Parameters
        ----------
        path : path-like
            The file; it appears whole or not at all.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where a label or the index of the training series would not come back the same.
        """
        check_is_fitted(self)
        persistence.save(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> XLSTMForecaster:
        """Read a forecaster that `save` wrote; it forecasts the same numbers, on the CPU."""
        forecaster = cls()
        persistence.load(Path(path), forecaster)
        return forecaster

    def _device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _long_columns(self) -> LongColumns:
        return LongColumns(self.id_column, self.time_column, self.target_column)

    def _context(self, y: Series | None) -> Panel:
        """Return the series to forecast from."""
        if y is None:
            return self.context_
        return read_panel(y, long=self._long_columns(), known=self.context_)

    def _forecast(self, series: TimeSeries) -> Floats:
        """Return the quantile forecasts after the end of a series, `(H, C, Q)`."""
        return self._rolling(series.values, np.array([len(series)]))[0]

    def _rolling(self, values: Floats, origins: NDArray[np.int64]) -> Floats:
        return rolling_forecasts(
            self.model_,
            values,
            origins=origins,
            context_length=self.context_length_,
            own_units=self.pooled_,
        )

    def _scored_values(self, y: Series) -> Iterator[Floats]:
        """Yield the readings of each series, after its context where they follow on that."""
        panel, context = self._context(y), self.context_
        for key, one in panel.series.items():
            before = context.series.get(key)
            if before is not None and follows_on(one.index, before.index):
                yield np.concatenate((before.values, one.values))
            else:
                yield one.values
