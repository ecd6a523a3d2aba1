"""The regressor: what is not measured told from what is, row by row, in scikit-learn's manner."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from torch import Tensor
from torch.nn import functional as F

from xlstm_ts.checks import check_fraction, check_integer
from xlstm_ts.compute import find_device, seeded
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import Floats
from xlstm_ts.plans import LONGEST_CONTEXT, LOOKS
from xlstm_ts.runs import Record
from xlstm_ts.scaling import VARIANCE_FLOOR
from xlstm_ts.training import TrainingConfig, train
from xlstm_ts.units import Units, find_column_units, find_units
from xlstm_ts.windows import Columns

Table = ArrayLike | pd.DataFrame
Target = ArrayLike | pd.Series | pd.DataFrame

SHORTEST_CONTEXT = 64
# Rows that `predict` runs at once; the state goes on from one piece to the next.
PIECE = 4096
NUMBERS = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
check_input: Any = validate_data  # typed as if it took text alone


class XLSTMRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Tell `y` at each row from `X` at that row and the rows before it: a causal soft sensor.

    Rows are time steps in their order, with one step throughout. `y` is what training aims at and
    never an input: it may be measured by a laboratory, now and then, and not at all later on.

    Parameters
    ----------
    context_length : int or "auto", default="auto"
        Rows of a training window, at most those there are to train on. "auto" takes half of these,
        but from 64 to 512.
    blocks : str, default="mm"
        The stack: "m" is an mLSTM, "s" an sLSTM block; without blocks `y` is told from its row
        alone.
    d_model, n_heads : int, default=64, 4
        Width of the model and heads of each cell.
    dropout : float, default=0.1
        Share of activations dropped in training.
    max_steps, batch_size : int, default=500, 8
        Steps of the optimiser, and windows in each; every row of a window is scored.
    learning_rate, weight_decay, gradient_clip : float, default=1e-3, 0.01, 1.0
        Of AdamW with warm-up and cosine.
    validation_fraction : float, default=0.1
        Share of the rows, from the end, on which the best weights are chosen; 0 trains on
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
        The trained model: its readings are the outputs, all of them missing, its past columns `X`.
    context_length_ : int
        The context in use.
    output_shape_ : tuple of int
        Shape of `y` at one row: `()`, or the number of outputs.
    history_ : list of Record
        Step, loss and validation loss at each look.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Columns of `X` in the fit; names where all of them are text.

    Notes
    -----
    Training takes the mean absolute error, so a prediction is a median: few wild values of `y` do
    not bend it.

    `predict` begins with nothing seen. Where rows before those of interest are known, give them too
    and drop their predictions. Searches need a split in time, such as `TimeSeriesSplit`.

    References
    ----------
    M. Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, arXiv:2405.04517.

    Examples
    --------
    >>> import numpy as np
    >>> from xlstm_ts import XLSTMRegressor
    >>> X = np.random.default_rng(0).standard_normal((500, 2))
    >>> y = np.convolve(X[:, 0], 0.9 ** np.arange(50))[:500]
    >>> regressor = XLSTMRegressor(d_model=16, max_steps=20, random_state=0).fit(X, y)
    >>> regressor.predict(X).shape
    (500,)
    """

    def __init__(
        self,
        *,
        context_length: int | Literal["auto"] = "auto",
        blocks: str = "mm",
        d_model: int = 64,
        n_heads: int = 4,
        dropout: float = 0.1,
        max_steps: int = 500,
        batch_size: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = 5,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.context_length: int | Literal["auto"] = context_length
        self.blocks = blocks
        self.d_model = d_model
        self.n_heads = n_heads
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

    def fit(self, X: Table, y: Target) -> XLSTMRegressor:
        """Train on rows in the order of time.

        Parameters
        ----------
        X : array or DataFrame (T, K)
            Numbers, NaN where missing.
        y : array, Series or DataFrame (T,) or (T, C)
            What is to be told at each row. NaN is not known, and is not trained on.

        Returns
        -------
        XLSTMRegressor
            The estimator itself.

        Raises
        ------
        ValueError
            Where a parameter is out of range, or `X` or `y` are no finite numbers of equal length.
        SeriesError
            Where an output is not known at any row to train on.
        TrainingError
            Where the loss becomes infinite or NaN.
        """
        columns, outputs = check_input(
            self, X, y, validate_separately=(NUMBERS, {**NUMBERS, "ensure_2d": False})
        )
        check_consistent_length(columns, outputs)
        _check_rows(X, y)
        n_train = self._rows_to_train_on(len(columns))
        target = _as_columns(outputs)
        _check_known(
            target[:n_train], rows=f"before its validation tail (the first {n_train} rows)"
        )
        if n_train < len(target) and np.isnan(target[n_train:]).all():
            warnings.warn(
                f"No output is known in the validation tail (the last {len(target) - n_train} "
                "rows): the last weights are kept, not the best ones. Give fewer rows, or a larger "
                "`validation_fraction`.",
                SeriesWarning,
                stacklevel=2,
            )
        units = _output_units(target[:n_train])
        training = self._training_config(n_train)
        with seeded(self.random_state) as generator:
            model = XLSTM(self._model_config(n_past=columns.shape[1], n_channels=target.shape[1]))
            model.set_units(*units)
            model.covariates.set_units(*find_column_units(columns[:n_train]))
            history = train(
                model.to(find_device(self.device)),
                # A model tells the reading after a row: one row late, that is the `y` of the row.
                [_with_gap(torch.as_tensor(units.standardise(target)).float(), before=1)],
                columns=[Columns.of(_with_gap(torch.tensor(columns), after=1))],
                n_train=[n_train + 1],
                config=training,
                generator=generator,
            )
        self.model_ = model
        self.history_: list[Record] = history
        self.context_length_ = training.context_length
        self.output_shape_: tuple[int, ...] = outputs.shape[1:]
        return self

    def predict(self, X: Table) -> Floats:
        """Tell `y` at each row, from nothing but that row and those before it.

        Parameters
        ----------
        X : array or DataFrame (T, K)
            Rows in the order of time, with the columns of the fit; NaN is missing.

        Returns
        -------
        ndarray of float64, shape (T,) or (T, C)
            Predictions, in the shape of the `y` of the fit.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            Where `X` has other columns or is not of finite numbers.
        """
        check_is_fitted(self)
        # A frame gives numbers that must not be written to: tensors copy them, here and in `fit`.
        checked = check_input(self, X, reset=False, **NUMBERS)
        columns = torch.tensor(checked, device=self.model_.center.device)
        hidden = columns.new_full((len(columns), len(self.model_.center)), torch.nan)
        state, told = None, []
        with torch.inference_mode():
            for nothing, part in zip(hidden.split(PIECE), columns.split(PIECE), strict=True):
                forecast, state = self.model_(nothing[None], state, _with_gap(part, after=1)[None])
                told.append(forecast[0, :, 0, :, 0].cpu())
        return torch.cat(told).numpy().reshape(-1, *self.output_shape_)

    def score(self, X: Table, y: Target, sample_weight: ArrayLike | None = None) -> float:
        """Return the R2 of the predictions, averaged over outputs: 1 is perfect.

        Parameters
        ----------
        X, y : array, Series or DataFrame
            As in `fit`. A row at which an output is not known does not count for it.
        sample_weight : array (T,), optional
            Weights of the rows.

        Returns
        -------
        float
            The mean R2; higher is better.

        Raises
        ------
        SeriesError
            Where an output is not known at any row.
        """
        told = self.predict(X)
        truth = check_array(y, **NUMBERS, ensure_2d=False, input_name="y")
        weight = np.ones(len(told)) if sample_weight is None else np.asarray(sample_weight)
        check_consistent_length(told, truth, weight)
        _check_known(_as_columns(truth), rows=f"in its {len(truth)} rows")
        pairs = zip(_as_columns(truth).T, _as_columns(told).T, strict=True)
        scores = [
            r2_score(output[known], guess[known], sample_weight=weight[known])
            for output, guess in pairs
            for known in [~np.isnan(output)]
        ]
        return float(np.mean(scores))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    def _rows_to_train_on(self, n_rows: int) -> int:
        check_fraction("validation_fraction", self.validation_fraction)
        return max(1, n_rows - round(self.validation_fraction * n_rows))

    def _model_config(self, *, n_past: int, n_channels: int) -> XLSTMConfig:
        return XLSTMConfig(
            n_channels=n_channels,
            n_past=n_past,
            horizon=1,
            quantiles=(0.5,),
            channels="mixed",
            blocks=self.blocks,
            d_model=self.d_model,
            n_heads=self.n_heads,
            dropout=self.dropout,
        )

    def _training_config(self, n_train: int) -> TrainingConfig:
        wanted = self.context_length
        usual = min(max(SHORTEST_CONTEXT, n_train // 2), LONGEST_CONTEXT)
        context_length = usual if wanted == "auto" else wanted
        check_integer("context_length", context_length, least=1)
        check_integer("max_steps", self.max_steps, least=1)
        same = ("max_steps", "batch_size", "learning_rate", "weight_decay", "gradient_clip")
        return TrainingConfig(
            **{name: getattr(self, name) for name in (*same, "patience", "verbose")},
            context_length=min(context_length, n_train),
            validation_every=max(1, self.max_steps // LOOKS),
            hide_readings=True,
        )


def _as_columns(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _with_gap(rows: Tensor, *, before: int = 0, after: int = 0) -> Tensor:
    """Return rows `(T, columns)` with missing ones before or after them."""
    return F.pad(rows, (0, 0, before, after), value=torch.nan)


def _output_units(target: Floats) -> Units:
    """Return the units of outputs such that the head speaks in their spreads."""
    units = find_units(target)
    # Without a reading the causal scale stays where it starts.
    return units._replace(spread=units.spread / VARIANCE_FLOOR**0.5)


def _check_known(target: Floats, *, rows: str) -> None:
    unknown = np.isnan(target).all(0)
    if unknown.any():
        raise SeriesError(
            f"`y` has no number {rows} in column {int(unknown.argmax())}; drop it, or give rows at "
            "which it is known."
        )


def _check_rows(X: Table, y: Target) -> None:
    """Refuse rows that are not those of one run in the order of time, as far as indexes tell."""
    index, other = getattr(X, "index", None), getattr(y, "index", None)
    if not isinstance(index, pd.Index):
        return
    if isinstance(index, pd.MultiIndex):
        raise ValueError("`X` holds several series; fit one at a time: X.loc['key'], y.loc['key'].")
    if isinstance(other, pd.Index) and not index.equals(other):
        raise ValueError("`X` and `y` have different indexes; align them: y = y.reindex(X.index).")
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) and not index.is_monotonic_increasing:
        raise ValueError("The rows of `X` go back in time; sort both: X.sort_index().")
