"""Training: random windows, dense pinball loss, early stopping on the tail, best weights kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from xlstm_ts.checks import check_integer, check_number, check_positive
from xlstm_ts.exceptions import TrainingError
from xlstm_ts.losses import pinball_loss
from xlstm_ts.model import XLSTM
from xlstm_ts.windows import Windows, WindowSampler

WARM_UP_SHARE = 0.05
# Tokens of the first fifth of a context are not scored: they have seen too little.
UNSCORED_PART = 5
VALIDATION_WINDOWS = 1024
VALIDATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained.

    Parameters
    ----------
    context_length : int
        Readings of a window, a multiple of the model's patch length.
    max_steps, batch_size : int
        Steps of the optimiser, and windows in each.
    learning_rate, weight_decay : float
        Of AdamW; the rate warms up over the first 5 % and falls to zero as a cosine.
    gradient_clip : float
        Largest norm of the gradient.
    validation_every : int
        Steps between two looks at the validation loss.
    patience : int or None
        Looks without a better loss after which training stops; None never stops early.
    verbose : int
        1 shows a progress bar.

    Raises
    ------
    ValueError
        Where a field is out of range; the message names the field and the rule.
    """

    context_length: int
    max_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    gradient_clip: float
    validation_every: int
    patience: int | None
    verbose: int

    def __post_init__(self) -> None:
        """Refuse what nothing can be trained with, naming the field."""
        for name in ("context_length", "max_steps", "batch_size", "validation_every"):
            check_integer(name, getattr(self, name), least=1)
        check_positive("learning_rate", self.learning_rate)
        check_number("weight_decay", self.weight_decay, least=0)
        check_positive("gradient_clip", self.gradient_clip)
        if self.patience is not None:
            check_integer("patience", self.patience, least=1)
        if not isinstance(self.verbose, bool):
            check_integer("verbose", self.verbose, least=0)


class Record(NamedTuple):
    """One look at the losses, in standardised units; the second is NaN without a tail."""

    step: int
    loss: float
    validation_loss: float


def train(
    model: XLSTM,
    series: Sequence[Tensor],
    *,
    n_train: Sequence[int],
    config: TrainingConfig,
    generator: torch.Generator,
) -> list[Record]:
    """Train `model` in place and leave it with its best weights, in evaluation mode.

    Parameters
    ----------
    model : XLSTM
        The model, on the device that it is to be trained on.
    series : sequence of Tensor
        Standardised readings `(T, C)` of each series, float32, NaN where missing.
    n_train : sequence of int
        Readings of each to train on; those after them are the validation tail, on which the best
        weights are chosen. Without a tail these are the last ones. Series with none are left out.
    config : TrainingConfig
        How to train.
    generator : torch.Generator
        Draws the windows; dropout draws from torch's global generator.

    Returns
    -------
    list of Record
        The losses at each look.

    Raises
    ------
    TrainingError
        Where the loss, looked at, is not finite.
    """
    known = [one[:count] for one, count in zip(series, n_train, strict=True) if count]
    sampler = _sampler(model, known, config)
    validation = _validation_windows(model, series, n_train, config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = LambdaLR(optimizer, lambda step: _rate(step, config.max_steps))
    best, records, running = _Best(), list[Record](), list[Tensor]()
    with tqdm(total=config.max_steps, disable=config.verbose < 1, desc="fit") as bar:
        for step in range(1, config.max_steps + 1):
            windows = sampler.draw(config.batch_size, generator=generator)
            running.append(_update(model, windows, optimizer, config.gradient_clip))
            schedule.step()
            bar.update()
            if step % config.validation_every and step < config.max_steps:
                continue
            records.append(_look(model, step, running, validation=validation, drawn=windows))
            running.clear()
            bar.set_postfix(loss=records[-1].loss, validation=records[-1].validation_loss)
            if best.is_exhausted(model, records[-1].validation_loss, config.patience):
                break
    if best.weights is not None:
        model.load_state_dict(best.weights)
    model.eval()
    return records


@dataclass
class _Best:
    """The weights with the lowest validation loss so far."""

    loss: float = math.inf
    weights: dict[str, Tensor] | None = field(default=None, repr=False)
    looks_since: int = 0

    def is_exhausted(self, model: nn.Module, loss: float, patience: int | None) -> bool:
        """Look at a loss, keep the weights if it is the best, say whether to stop."""
        self.looks_since += 1
        if loss < self.loss:
            self.loss, self.looks_since = loss, 0
            self.weights = copy.deepcopy(model.state_dict())
        return patience is not None and not math.isnan(loss) and self.looks_since >= patience


def _look(
    model: XLSTM, step: int, losses: list[Tensor], *, validation: Windows | None, drawn: Windows
) -> Record:
    """Return the losses since the last look and on the tail, all of them finite."""
    loss = torch.stack(losses).mean().item()
    # Without a tail, the windows just drawn tell what the last step did to the weights.
    judged = _last_token_loss(model, drawn if validation is None else validation)
    for value in (loss, judged):
        if not math.isfinite(value):
            raise TrainingError(
                f"The fit diverged: the loss at step {step} is {value}; lower `learning_rate` or "
                "`gradient_clip`."
            )
    return Record(step, loss, math.nan if validation is None else judged)


def _sampler(model: XLSTM, series: Sequence[Tensor], config: TrainingConfig) -> WindowSampler:
    return WindowSampler(
        series,
        groups=model.config.groups,
        context_length=config.context_length,
        patch_length=model.config.patch_length,
        horizon=model.config.horizon,
    )


def _rate(step: int, max_steps: int) -> float:
    """Return the share of the learning rate in force: linear warm-up, then cosine to zero."""
    warm_up = max(1.0, WARM_UP_SHARE * max_steps)
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / max_steps))


def _update(
    model: XLSTM, windows: Windows, optimizer: torch.optim.Optimizer, gradient_clip: float
) -> Tensor:
    """Take one step of the optimiser on the loss of all scored tokens; return the loss."""
    model.train()
    windows = windows.to(model.head.weight.device)
    forecast = model.forward_patches(windows.value, windows.observed)
    first = forecast.shape[1] // UNSCORED_PART
    loss = pinball_loss(forecast[:, first:], windows.target[:, first:], model.levels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
    optimizer.step()
    return loss.detach()


def _validation_windows(
    model: XLSTM, series: Sequence[Tensor], n_train: Sequence[int], config: TrainingConfig
) -> Windows | None:
    """Return windows that end in the tails; None where there is nothing to choose weights by."""
    tails = [
        one[max(0, count - config.context_length) :]
        for one, count in zip(series, n_train, strict=True)
        if count < len(one)
    ]
    if not tails:
        return None
    windows = _sampler(model, tails, config).spread(VALIDATION_WINDOWS)
    return None if windows.target[:, -1].isnan().all() else windows


@torch.no_grad()
def _last_token_loss(model: XLSTM, windows: Windows) -> float:
    """Return the loss of the last token alone: the forecast from a whole context."""
    model.eval()
    forecasts = [
        model.forward_patches(*(part.to(model.head.weight.device) for part in parts))[:, -1]
        for parts in zip(
            windows.value.split(VALIDATION_BATCH),
            windows.observed.split(VALIDATION_BATCH),
            strict=True,
        )
    ]
    target = windows.target[:, -1].to(forecasts[0].device)
    return pinball_loss(torch.cat(forecasts), target, model.levels).item()
