"""The estimator: series in, forecasts out, in scikit-learn's manner."""

from __future__ import annotations

import os
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
from xlstm_ts.config import Channels, XLSTMConfig
from xlstm_ts.evaluation import rolling_forecasts, seasonal_naive, skill, targets
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.frames import Floats, Panel, check_same_channels, read_panel
from xlstm_ts.model import XLSTM
from xlstm_ts.seasons import season_length
from xlstm_ts.training import Record, TrainingConfig, train

Series = ArrayLike | pd.Series | pd.DataFrame
LONGEST_CONTEXT = 512
# A span of seven seasons follows the week of hourly data; without a season, the same number.
SPAN_SEASONS = 7
SPAN_WITHOUT_SEASON = 168.0
# Looks at the validation loss in a fit that is not stopped early.
LOOKS = 10


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
        """
        panel = read_panel(y)
        season = season_length(panel)
        config = self._model_config(panel, season)
        n_train, context_length = self._split(panel, config)
        training = self._training_config(context_length)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = XLSTM(config)
            standard = _standardise(model, panel, n_train)
            model.to(self._device())
            self.history_: list[Record] = train(
                model,
                standard,
                n_train=n_train,
                config=training,
                generator=torch.Generator().manual_seed(seed),
            )
        self.model_ = model
        self.context_length_ = context_length
        self.season_length_ = season
        self.channels_ = panel.channels
        self.context_ = panel.last(context_length)
        return self

    def predict(self, y: Series | None = None) -> NDArray[Any] | pd.Series[Any] | pd.DataFrame:
        """Forecast the next `horizon` readings: the quantile nearest to the median.

        Parameters
        ----------
        y : array, Series or DataFrame, optional
            A new context with the channels of the training series, of any length; without one the
            forecast goes on from the end of the training series. Nothing is trained.

        Returns
        -------
        array (H,) or (H, C), Series or DataFrame
            The same kind of object as came in, with the times that follow.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where `y` cannot be used or has other channels.
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
            Readings with the channels of the training series. Where their times follow on those
            of the training series, its end is the context of the first forecasts; otherwise `y`
            begins with `context_length_` readings of context.

        Returns
        -------
        float
            The skill; higher is better, as scikit-learn's searches expect.
        """
        check_is_fitted(self)
        values, season = self._scored_values(y), self.season_length_
        horizon = self.model_.config.horizon
        origins = np.arange(self.context_length_, len(values) - horizon + 1, horizon)
        if not len(origins):
            raise SeriesError(
                f"`y` is too short to score: {len(values)} readings with their context, at least "
                f"{self.context_length_ + horizon} (context and horizon) are needed."
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
        """
        check_is_fitted(self)
        persistence.save(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> XLSTMForecaster:
        """Read a forecaster that `save` wrote; it forecasts the same numbers, on the CPU."""
        forecaster = cls()
        persistence.load(Path(path), forecaster)
        return forecaster

    def _model_config(self, panel: Panel, season: int) -> XLSTMConfig:
        patch = season if self.patch_length == "auto" else self.patch_length
        span = SPAN_SEASONS * season if season > 1 else SPAN_WITHOUT_SEASON
        same = ("horizon", "channels", "blocks", "d_model", "n_heads", "expansion")
        return XLSTMConfig(
            **{name: getattr(self, name) for name in (*same, "linear_length", "dropout")},
            n_channels=len(panel.channels),
            quantiles=tuple(self.quantiles),
            patch_length=patch,
            scaling_span=span if self.scaling_span == "auto" else self.scaling_span,
        )

    def _training_config(self, context_length: int) -> TrainingConfig:
        for name in ("max_steps", "batch_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        same = ("max_steps", "batch_size", "learning_rate", "weight_decay", "gradient_clip")
        return TrainingConfig(
            **{name: getattr(self, name) for name in (*same, "patience", "verbose")},
            context_length=context_length,
            validation_every=max(1, self.max_steps // LOOKS),
        )

    def _split(self, panel: Panel, config: XLSTMConfig) -> tuple[int, int]:
        """Return the readings to train on and the context length that fits them."""
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must be in [0, 1), got {self.validation_fraction}."
            )
        length, patch, horizon = len(panel.values), config.patch_length, config.horizon
        tail = round(self.validation_fraction * length)
        n_train = length - max(tail, horizon) if tail else length
        wanted = self.context_length
        longest = LONGEST_CONTEXT if wanted == "auto" else wanted
        if longest < patch:
            raise ValueError(
                f"`context_length` must be at least `patch_length` ({patch}), got {longest}."
            )
        context_length = longest // patch * patch
        if wanted == "auto":
            # Half of a short series is context, the other half gives windows to train on.
            half = (n_train - horizon) // 2 // patch * patch
            context_length = min(context_length, max(half, patch))
        if n_train < context_length + horizon:
            needed = context_length + horizon + length - n_train
            raise SeriesError(
                f"`y` is too short: {length} readings, at least {needed} are needed for a context "
                f"of {context_length}, a horizon of {horizon} and a validation tail of "
                f"{length - n_train}; give more readings or lower these."
            )
        return n_train, context_length

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
        return panel

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
    model.spread.copy_(torch.as_tensor(np.where(spread > 0, spread, 1.0)))
    standard = (torch.as_tensor(panel.values) - model.center) / model.spread
    return standard.float()
