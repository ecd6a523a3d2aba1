"""What a fit follows from: parameters and series become one plan, before anything is built."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlstm_ts.checkpoints import Checkpoint, fingerprint
from xlstm_ts.checks import check_fraction, check_integer
from xlstm_ts.columns import PERIODS
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.exogenous import Covariates
from xlstm_ts.panels import Floats, Outline, Panel
from xlstm_ts.seasons import season_length
from xlstm_ts.training import Callback, TrainingConfig

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

LONGEST_CONTEXT = 512
CONV_LENGTH = 4  # tokens, where they are single readings; patches hold their neighbours already
# A span of seven seasons follows the week of hourly data; without a season, the same number.
SPAN_SEASONS = 7
SPAN_WITHOUT_SEASON = 168.0
# Looks at the validation loss in a fit that is not stopped early.
LOOKS = 10
# Of the steps and the learning rate of a fit, what each `partial_fit` takes.
PARTIAL_STEPS, PARTIAL_RATE = 0.1, 0.3
# Parameters that change when training stops or where it runs, but no step of it.
NOT_TRAINED_BY = {
    "verbose", "callbacks", "max_time", "checkpoint", "device", "devices", "num_nodes", "strategy",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """How one fit goes.

    Parameters
    ----------
    season : int
        Readings in the season that was found.
    model : XLSTMConfig
        The shape of the model.
    n_train : tuple of int
        Readings of each series to train on; those after them are its validation tail. None where
        a series is shorter than a patch and a horizon.
    training : TrainingConfig
        How to train.
    """

    season: int
    model: XLSTMConfig
    n_train: tuple[int, ...]
    training: TrainingConfig


def plan_fit(
    forecaster: XLSTMForecaster,
    panel: Panel | Outline,
    covariates: Covariates,
    *,
    data: Iterable[Floats],
) -> FitPlan:
    """Check the parameters of a forecaster and settle what "auto" leaves open.

    Parameters
    ----------
    forecaster : XLSTMForecaster
        The parameters.
    panel : Panel or Outline
        The series, or what is known of them.
    covariates : Covariates
        The columns beside them.
    data : iterable of array
        What tells the series apart from others, asked for where there is a checkpoint.

    Raises
    ------
    ValueError
        Where a parameter is out of range; the message names it, its value and the rule.
    SeriesError
        Where the series is too short for the parameters.
    """
    season = season_length(panel)
    model = _model_config(forecaster, panel, covariates, season=season)
    n_train = _training_readings(forecaster, panel, horizon=model.horizon)
    context_length = _context_length(forecaster, model, n_train=max(n_train))
    _check_length(panel, model, n_train=n_train, context_length=context_length)
    needed = model.patch_length + model.horizon
    n_train = tuple(count if count >= needed else 0 for count in n_train)
    if 0 in n_train:
        warnings.warn(
            f"{n_train.count(0)} of {len(n_train)} series have too few readings before their tail "
            f"for a patch and a horizon ({needed}); they are forecast, but not trained on.",
            SeriesWarning,
            stacklevel=3,
        )
    checkpoint = _checkpoint(forecaster, data, model, context_length=context_length)
    training = _training_config(forecaster, context_length=context_length, checkpoint=checkpoint)
    return FitPlan(season=season, model=model, n_train=n_train, training=training)


def _model_config(
    forecaster: XLSTMForecaster, panel: Panel | Outline, covariates: Covariates, *, season: int
) -> XLSTMConfig:
    patch = season if forecaster.patch_length == "auto" else forecaster.patch_length
    span, conv = forecaster.scaling_span, forecaster.conv_length
    usual_span = SPAN_SEASONS * season if season > 1 else SPAN_WITHOUT_SEASON
    same = (
        "horizon", "channels", "channel_embedding", "blocks", "d_model", "n_heads", "expansion",
        "linear_length", "dropout", "target_transform",
    )  # fmt: skip
    return XLSTMConfig(
        **{name: getattr(forecaster, name) for name in same},
        n_channels=len(panel.channels),
        quantiles=_levels(forecaster.quantiles),
        patch_length=patch,
        conv_length=(CONV_LENGTH if patch == 1 else 0) if conv == "auto" else conv,
        scaling_span=usual_span if span == "auto" else span,
        n_past=len(covariates.named("past")),
        n_known=len(covariates.named("known")),
        n_static=len(covariates.named("static")),
        periods=tuple(PERIODS[field] for field in covariates.named("cyclic")),
    )


def _levels(quantiles: object) -> tuple[float, ...]:
    try:
        return tuple(quantiles)  # type: ignore[arg-type]
    except TypeError as err:
        raise ValueError(f"`quantiles` must be a sequence of levels, got {quantiles!r}.") from err


def _training_readings(
    forecaster: XLSTMForecaster, panel: Panel | Outline, *, horizon: int
) -> tuple[int, ...]:
    """Return the readings of each series before its tail, which holds a horizon or nothing."""
    share = forecaster.validation_fraction
    check_fraction("validation_fraction", share)
    lengths = panel.lengths
    tails = [max(tail, horizon) if (tail := round(share * length)) else 0 for length in lengths]
    return tuple(length - tail for length, tail in zip(lengths, tails, strict=True))


def _context_length(forecaster: XLSTMForecaster, model: XLSTMConfig, *, n_train: int) -> int:
    """Return the context in whole patches; "auto" takes what the series allows."""
    wanted, patch = forecaster.context_length, model.patch_length
    if wanted != "auto":
        check_integer("context_length", wanted, least=1)
    longest = LONGEST_CONTEXT if wanted == "auto" else wanted
    if longest < patch:
        raise ValueError(
            f"`context_length` must be at least `patch_length` ({patch}), got {longest}."
        )
    context_length = longest // patch * patch
    if wanted == "auto":
        # Half of a short series is context, the other half gives windows to train on.
        half = (n_train - model.horizon) // 2 // patch * patch
        context_length = min(context_length, max(half, patch))
    return context_length


def _check_length(
    panel: Panel | Outline, model: XLSTMConfig, *, n_train: tuple[int, ...], context_length: int
) -> None:
    """Refuse data of which no series has a whole window."""
    if max(n_train) < context_length + model.horizon:
        length = max(panel.lengths)
        tail = length - max(n_train)
        needed = context_length + model.horizon + tail
        raise SeriesError(
            f"`y` is too short: {length} readings, at least {needed} are needed for a context "
            f"of {context_length}, a horizon of {model.horizon} and a validation tail of {tail}; "
            "give more readings or lower these."
        )


def _checkpoint(
    forecaster: XLSTMForecaster, data: Iterable[Floats], model: XLSTMConfig, *, context_length: int
) -> Checkpoint | None:
    """Return where the training is kept, told apart by all that it follows from."""
    if forecaster.checkpoint is None:
        return None
    params = {k: v for k, v in forecaster.get_params().items() if k not in NOT_TRAINED_BY}
    if not isinstance(forecaster.random_state, Integral):
        params["random_state"] = None  # each fit draws other seeds; the checkpoint keeps its own
    params |= asdict(model) | {"context_length": context_length}
    try:
        path = Path(forecaster.checkpoint)
    except TypeError as err:
        raise ValueError(f"`checkpoint` must be a path, got {forecaster.checkpoint!r}.") from err
    return Checkpoint(path, fingerprint(params, readings=data))


def _callbacks(callbacks: Any) -> tuple[Callback, ...]:
    if callbacks is None:
        return ()
    if isinstance(callbacks, Iterable) and not callable(callbacks):
        return tuple(callbacks)
    return (callbacks,)


def _training_config(
    forecaster: XLSTMForecaster, *, context_length: int, checkpoint: Checkpoint | None
) -> TrainingConfig:
    check_integer("max_steps", forecaster.max_steps, least=1)
    same = ("max_steps", "batch_size", "learning_rate", "weight_decay", "gradient_clip")
    others = ("patience", "verbose", "max_time", "stateful")
    return TrainingConfig(
        **{name: getattr(forecaster, name) for name in (*same, *others)},
        context_length=context_length,
        validation_every=max(1, forecaster.max_steps // LOOKS),
        callbacks=_callbacks(forecaster.callbacks),
        checkpoint=checkpoint,
    )


def plan_partial_fit(forecaster: XLSTMForecaster, *, context_length: int) -> TrainingConfig:
    """Return how a fitted model is trained on: fewer and smaller steps, all of them kept."""
    config = _training_config(forecaster, context_length=context_length, checkpoint=None)
    steps = max(1, round(PARTIAL_STEPS * config.max_steps))
    return replace(
        config,
        max_steps=steps,
        validation_every=steps,
        stateful=False,  # what is new is too short to go on in
        learning_rate=PARTIAL_RATE * config.learning_rate,
    )
