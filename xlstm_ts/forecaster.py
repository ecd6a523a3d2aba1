"""The estimator: series in, forecasts out, in scikit-learn's manner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xlstm_ts import persistence
from xlstm_ts.config import Channels
from xlstm_ts.evaluation import rolling_forecasts, seasonal_naive, skill, targets
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.frames import Floats, Panel, at_step_of, check_same_channels, read_panel
from xlstm_ts.model import XLSTM
from xlstm_ts.plans import plan_fit
from xlstm_ts.runs import Record
from xlstm_ts.training import Callback, train

Series = ArrayLike | pd.Series | pd.DataFrame
# A spread below this share of the level is no spread: the float64 sums over a constant channel of
# ten million readings err by half of it.
ROUNDING = 3e-10


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
    max_time : float or None, default=None
        Seconds of training, after which it stops and the best weights so far stay.
    callbacks : callable or sequence of callables, optional
        Each is called with the `Record` of every look; one that returns True stops the training.
        `save` leaves them out.
    checkpoint : path-like, optional
        A file in which the training is kept at every look, and from which `fit` goes on if it is
        there, to the bit on the same device. The file goes when the training is complete.
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
        The end of the training series, from which `predict()` goes on.
    channels_ : tuple of str
        Names of the channels.
    context_length_, season_length_ : int
        The context in use, and the season that was found.
    history_ : list of Record
        Step, loss and validation loss at each look.

    Notes
    -----
    Ctrl-C stops the training as well: `fit` returns with the best weights so far and an
    `InterruptedWarning`. A training that was stopped by Ctrl-C, a callback or `max_time` is not
    complete: with a `checkpoint` the next `fit` goes on with it, and `max_time` counts anew.
    A checkpoint serves one fit at a time and knows its parameters and series; from another file
    `fit` raises.

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
        max_time: float | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
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
        self.max_time = max_time
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, y: Series) -> XLSTMForecaster:
        """Train on a series.

        Parameters
        ----------
        y : array (T,) or (T, C), Series, or wide DataFrame
            Readings in the order of time, with one step throughout; NaN is missing.

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
            Where the loss becomes infinite or NaN; an earlier fit is kept, as after any error.
        CheckpointError
            Where the file `checkpoint` is damaged, or was written by another fit.
        """
        panel = read_panel(y)
        plan = plan_fit(self, panel)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        with torch.random.fork_rng():
            torch.manual_seed(seeds[0])
            model = XLSTM(plan.model)
            standard = _standardise(model, panel, plan.n_train)
            model.to(self._device())
            history = train(
                model,
                standard,
                n_train=plan.n_train,
                config=plan.training,
                generator=torch.Generator().manual_seed(seeds[1]),
            )
        self.model_ = model
        self.history_: list[Record] = history
        self.context_length_ = plan.training.context_length
        self.season_length_ = plan.season
        self.channels_ = panel.channels
        self.context_ = panel.last(self.context_length_)
        return self

    def predict(self, y: Series | None = None) -> NDArray[Any] | pd.Series[Any] | pd.DataFrame:
        """Forecast the next `horizon` readings: the quantile nearest to the median.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context of any length, with the channels and the step of the training series;
            without one the forecast goes on from the end of that. Nothing is trained.

        Returns
        -------
        array (H,) or (H, C), Series or DataFrame
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
        return panel.restore(self._forecast(panel)[..., self.model_.config.median])

    def predict_quantiles(self, y: Series | None = None) -> NDArray[Any] | pd.DataFrame:
        """Forecast all quantile levels of the next `horizon` readings.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context, as for `predict`.

        Returns
        -------
        array (H, Q) or (H, C, Q), or DataFrame
            For a Series a frame with one column a level, for a frame one with columns
            (channel, level). Levels never cross.
        """
        check_is_fitted(self)
        panel = self._context(y)
        forecast, levels = self._forecast(panel), self.model_.config.quantiles
        if isinstance(panel.like, np.ndarray):
            return forecast[:, 0] if panel.like.ndim == 1 else forecast
        index = panel.future_index(len(forecast))
        if isinstance(panel.like, pd.Series):
            return pd.DataFrame(forecast[:, 0], index=index, columns=list(levels))
        columns = pd.MultiIndex.from_product((panel.like.columns, levels))
        return pd.DataFrame(forecast.reshape(len(forecast), -1), index=index, columns=columns)

    def score(self, y: Series) -> float:
        """Return the skill over the seasonal-naive forecast: 1 is perfect, 0 is no better.

        Forecasts are made every `horizon` readings, each from the readings before it, and the
        score is 1 - MAE / MAE(seasonal naive), averaged over channels.

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
        values, season = self._scored_values(y), self.season_length_
        horizon = self.model_.config.horizon
        # The forecast needs a context before it, the seasonal-naive one a whole season.
        first = max(self.context_length_, season)
        origins = np.arange(first, len(values) - horizon + 1, horizon)
        if not len(origins):
            raise SeriesError(
                f"`y` is too short to score: {len(values)} readings with their context, at least "
                f"{first + horizon} are needed (a context of {self.context_length_} or a season "
                f"of {season}, whichever is longer, and a horizon of {horizon})."
            )
        forecast = rolling_forecasts(
            self.model_, values, origins=origins, context_length=self.context_length_
        )[..., self.model_.config.median]
        truth = targets(values, origins=origins, horizon=horizon)
        naive = seasonal_naive(values, origins=origins, horizon=horizon, season=season)
        return skill(forecast, naive, truth)

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

    def _context(self, y: Series | None) -> Panel:
        """Return the series to forecast from."""
        if y is None:
            return self.context_
        panel = read_panel(y)
        check_same_channels(panel, self.context_, name="y")
        return at_step_of(panel, self.context_, name="y")

    def _forecast(self, panel: Panel) -> Floats:
        """Return the quantile forecasts after the end of a series, `(H, C, Q)`."""
        origin = np.array([len(panel.values)])
        return rolling_forecasts(
            self.model_, panel.values, origins=origin, context_length=self.context_length_
        )[0]

    def _scored_values(self, y: Series) -> Floats:
        panel, context = self._context(y), self.context_
        timed = isinstance(panel.index, pd.DatetimeIndex | pd.PeriodIndex)
        if timed and panel.index[0] == context.future_index(1)[0]:
            return np.concatenate((context.values, panel.values))
        return panel.values


def _standardise(model: XLSTM, panel: Panel, n_train: int) -> torch.Tensor:
    """Give the model the mean and spread of the training readings; return the series in them."""
    values = panel.values[:n_train]
    silent = np.isnan(values).all(0)
    if silent.any():
        raise SeriesError(
            f"`y` column {panel.channels[int(silent.argmax())]!r} has no reading before its "
            f"validation tail (the last {len(panel.values) - n_train} readings); drop it."
        )
    center, spread = np.nanmean(values, 0), np.nanstd(values, 0)
    model.center.copy_(torch.as_tensor(center))
    varies = spread > ROUNDING * np.abs(center)
    model.spread.copy_(torch.as_tensor(np.where(varies, spread, 1.0)))
    standard = (torch.as_tensor(panel.values) - model.center) / model.spread
    return standard.float()
