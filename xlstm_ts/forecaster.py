"""The estimator: series in, forecasts out, in scikit-learn's manner."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from xlstm_ts import persistence
from xlstm_ts.calibration import calibrate_tails
from xlstm_ts.compute import seeded
from xlstm_ts.config import Channels, Transform
from xlstm_ts.distribution import Precision, Strategy, first_alone_warns, join_processes
from xlstm_ts.exogenous import Exogenous, KnownFuture, learn
from xlstm_ts.frames import read_panel
from xlstm_ts.model import XLSTM
from xlstm_ts.parquet.fitting import fit_parquet
from xlstm_ts.parquet.panel import ParquetPanel
from xlstm_ts.plans import plan_fit, plan_partial_fit
from xlstm_ts.prediction import Prediction, Series
from xlstm_ts.runs import Record
from xlstm_ts.statics import Static
from xlstm_ts.training import Callback, train
from xlstm_ts.transforms import check_domain
from xlstm_ts.units import Units, restandardise, standardise
from xlstm_ts.windows import Columns


class XLSTMForecaster(Prediction, BaseEstimator):  # type: ignore[misc]
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
    channel_embedding : bool, default=False
        Whether independent channels, alike as they are to the shared weights, are told apart by a
        learned vector each.
    blocks : str, default="mm"
        The stack: "m" is an mLSTM, "s" an sLSTM block; "" leaves the linear parts alone.
    d_model, n_heads : int, default=64, 4
        Width of the model and heads of each cell.
    expansion : int, default=1
        Width inside an mLSTM block in units of `d_model`; 2 (the paper's) has four times the state.
    conv_length : int or "auto", default="auto"
        Tokens that the causal convolution of each cell sees, 0 for none. "auto" takes 4 of single
        readings, as the paper does, and none of patches.
    linear_length : int, default=0
        Readings of a linear path beside the blocks; helps where patches miss the season.
    scaling_span : float or "auto", default="auto"
        Span of the causal mean and scale in readings. "auto" takes seven seasons.
    dropout : float, default=0.2
        Share of activations dropped in training.
    target_transform : {"log", "log1p"} or None, default=None
        Forecast the logarithm of readings above 0, or of 1 + y of readings above -1: for what
        varies by percent, as sales and loads of many sizes do.
    max_steps, batch_size : int, default=1000, 64
        Steps of the optimiser, and windows in each.
    learning_rate, weight_decay, gradient_clip : float, default=1e-3, 0.01, 1.0
        Of AdamW with warm-up and cosine.
    stateful : bool, default=False
        Whether training windows go on from the state that those before them left, as streams do.
    validation_fraction : float, default=0.1
        Share of the readings, from the end, on which the best weights are chosen; 0 trains on
        everything and keeps the last weights.
    patience : int or None, default=5
        Looks at the validation loss (every tenth of `max_steps`) without a better one after which
        training stops.
    known_future : "all" or sequence of str, default=()
        Columns of `X` that are known for the next `horizon` readings too, as prices, plans and
        weather forecasts are; `predict` asks for them. The others are known up to now.
    calendar : sequence of str, default=()
        Fields of the time to learn from: "minute", "hour" (with its minutes as a fraction),
        "dayofweek", "day", "dayofyear", "month".
    id_column, time_column, target_column : str, default="unique_id", "ds", "y"
        Columns of a long frame: which series, when, and the reading.
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
    devices : int or "auto", default=1
        Devices of each machine that train together, each in a process that `torchrun` starts;
        "auto" takes as many as it started. Needs the extra `fabric`.
    num_nodes : int, default=1
        Machines that train together.
    strategy : {"auto", "ddp"}, default="auto"
        How Lightning Fabric joins the processes; with "auto" it chooses.
    precision : {"32-true", "bf16-mixed"}, default="32-true"
        Of matrix products in training; weights, cells and sums are float32 in both.
    random_state : int, RandomState or None, default=None
        Makes a fit repeatable.
    verbose : int, default=0
        1 shows a progress bar with loss and validation loss.

    Attributes
    ----------
    model_ : XLSTM
        The trained model.
    context_ : Panel
        The end of each training series, from which `predict()` goes on; of files, one alone.
    pooled_ : bool
        Whether many series share the weights. Each window of readings is then put in units of its
        own, so that levels may differ and series that were never seen can be forecast.
    channels_ : tuple of str
        Names of the channels.
    covariates_ : Covariates
        The columns beside them.
    context_length_, season_length_ : int
        The context in use, and the season that was found.
    calibration_ : Calibration
        Errors of forecasts of the validation tail, from which intervals follow.
    history_ : list of Record
        Step, loss and validation loss at each look.

    Notes
    -----
    Ctrl-C stops the training as well: `fit` returns with the best weights so far and an
    `InterruptedWarning`. A training that was stopped by Ctrl-C, a callback or `max_time` is not
    complete: with a `checkpoint` the next `fit` goes on with it, and `max_time` counts anew.
    A checkpoint serves one fit at a time and knows its parameters and series; from another file
    `fit` raises.

    Where many processes train, each runs the same script with the same series and ends up with the
    same forecaster. They share the windows of a batch out: `batch_size` is that of all, and losses
    are those of one process. The first alone calls back, shows a bar and writes a checkpoint.

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
        channel_embedding: bool = False,
        blocks: str = "mm",
        d_model: int = 64,
        n_heads: int = 4,
        expansion: int = 1,
        conv_length: int | Literal["auto"] = "auto",
        linear_length: int = 0,
        scaling_span: float | Literal["auto"] = "auto",
        dropout: float = 0.2,
        target_transform: Transform = None,
        max_steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        stateful: bool = False,
        validation_fraction: float = 0.1,
        patience: int | None = 5,
        known_future: KnownFuture = (),
        calendar: Sequence[str] = (),
        id_column: str = "unique_id",
        time_column: str = "ds",
        target_column: str = "y",
        max_time: float | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        devices: int | Literal["auto"] = 1,
        num_nodes: int = 1,
        strategy: Strategy = "auto",
        precision: Precision = "32-true",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.horizon = horizon
        self.quantiles = quantiles
        self.context_length: int | Literal["auto"] = context_length
        self.patch_length: int | Literal["auto"] = patch_length
        self.channels = channels
        self.channel_embedding = channel_embedding
        self.blocks = blocks
        self.d_model = d_model
        self.n_heads = n_heads
        self.expansion = expansion
        self.conv_length: int | Literal["auto"] = conv_length
        self.linear_length = linear_length
        self.scaling_span: float | Literal["auto"] = scaling_span
        self.dropout = dropout
        self.target_transform: Transform = target_transform
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.stateful = stateful
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.known_future = known_future
        self.calendar = calendar
        self.id_column = id_column
        self.time_column = time_column
        self.target_column = target_column
        self.max_time = max_time
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.devices: int | Literal["auto"] = devices
        self.num_nodes = num_nodes
        self.strategy: Strategy = strategy
        self.precision: Precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, y: Series | ParquetPanel, X: Exogenous | None = None, *, static: Static | None = None
    ) -> XLSTMForecaster:
        """Train on one series or on a panel of them.

        Parameters
        ----------
        y : array (T,), (T, C) or (S, T, C), Series, DataFrame or ParquetPanel
            Readings in the order of time, with one step throughout; NaN is missing. A frame is
            wide, one column a channel, or long (see `id_column`). In a MultiIndex the last level
            is the time and those before it name the series, which may differ in length.
        X : array (T, K), Series or DataFrame, optional
            Covariates: numbers beside the readings, by the same times, NaN where missing. A frame
            is wide, has the keys of the series as `y` does, or is long without the readings; the
            rows of an array follow those of `y`.
        static : DataFrame, optional
            Numbers and categories of each series of a panel, one row each with its key as index,
            or in the column `id_column`.

        Returns
        -------
        XLSTMForecaster
            The estimator itself.

        Raises
        ------
        SeriesError
            Where `y` cannot be used (see `xlstm_ts.frames.read_panel`) or is too short, or `X` or
            `static` does not go with it.
        ValueError
            Where a parameter is out of range.
        TrainingError
            Where the loss becomes infinite or NaN; an earlier fit is kept, as after any error.
        CheckpointError
            Where the file `checkpoint` is damaged, or was written by another fit.
        """
        if isinstance(y, ParquetPanel):
            return fit_parquet(self, y, X, static)
        long = self._long_columns()
        with first_alone_warns(self):
            panel = read_panel(y, long=long)
            covariates, panel = learn(
                panel, X, static, known_future=self.known_future, calendar=self.calendar, long=long
            )
            data = (part for one in panel for part in (one.values, *covariates.parts(one)[:2]))
            plan = plan_fit(self, panel, covariates, data=data)
        check_domain(panel, plan.model.target_transform)
        standard, units = standardise(
            panel, n_train=plan.n_train, transform=plan.model.target_transform
        )
        processes = join_processes(self)
        with seeded(self.random_state, processes=processes) as generator:
            model = XLSTM(plan.model)
            if units is not None:
                model.set_units(*units)
            model.covariates.set_units(*covariates.units(panel, n_train=plan.n_train))
            history = train(
                model.to(processes.device),
                [torch.as_tensor(one).float() for one in standard],
                columns=[Columns.of(*covariates.parts(one)) for one in panel],
                n_train=plan.n_train,
                config=plan.training,
                generator=generator,
                processes=processes,
            )
        self.model_ = model
        self.covariates_ = covariates
        self.history_: list[Record] = history
        self.context_length_ = plan.training.context_length
        self.season_length_ = plan.season
        self.channels_ = panel.channels
        self.pooled_ = not panel.is_single
        self.context_ = panel.last(self.context_length_)
        self.calibration_ = calibrate_tails(
            list(panel),
            starts=plan.n_train,
            forecast=self._rolling,
            horizon=model.config.horizon,
            median=model.config.median,
        )
        return self

    def partial_fit(
        self, y: Series, X: Exogenous | None = None, *, static: Static | None = None
    ) -> XLSTMForecaster:
        """Train on with new readings, a tenth of the steps of `fit` at a third of its rate.

        Windows are drawn from the context in use and the new readings alone. The weights move
        towards what the series does now; intervals keep the errors of the validation tail.

        Parameters
        ----------
        y : array, Series or DataFrame
            Readings after those that are known, as for `update`. Before a `fit` this is one.
        X, static : optional
            Covariates, as for `update`.

        Returns
        -------
        XLSTMForecaster
            The estimator itself.

        Raises
        ------
        SeriesError
            Where `y` cannot be used, or does not come after what is known.
        TrainingError
            Where the loss becomes infinite or NaN; everything is then as before.
        """
        if not hasattr(self, "model_"):
            return self.fit(y, X, static=static)
        new = self._read_new(y, X, static)
        panel = self.context_.extended(new)
        model = copy.deepcopy(self.model_)
        units = None if self.pooled_ else Units(*model.units)
        standard = restandardise(panel, units, transform=model.config.target_transform)
        processes = join_processes(self)
        with seeded(self.random_state, processes=processes) as generator:
            history = train(
                model,
                [torch.as_tensor(one).float() for one in standard],
                columns=[Columns.of(*self.covariates_.parts(one)) for one in panel],
                n_train=[len(one) for one in panel],
                config=plan_partial_fit(self, context_length=self.context_length_),
                generator=generator,
                processes=processes,
            )
        self.model_, self.history_ = model, self.history_ + history
        self.context_ = panel.last(self.context_length_)
        return self

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
