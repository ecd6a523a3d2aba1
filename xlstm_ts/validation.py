"""The windows of a training, and the loss on the tail that chooses its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xlstm_ts.losses import pinball_loss
from xlstm_ts.model import XLSTM
from xlstm_ts.runs import Run
from xlstm_ts.windows import Columns, Windows, WindowSampler

if TYPE_CHECKING:
    from xlstm_ts.training import TrainingConfig

VALIDATION_WINDOWS = 1024
VALIDATION_BATCH = 256


def window_sampler(
    model: XLSTM, series: Sequence[Tensor], columns: Sequence[Columns], config: TrainingConfig
) -> WindowSampler:
    """Return what cuts the windows that a model is trained on."""
    return WindowSampler(
        series,
        columns=columns,
        groups=model.config.groups,
        context_length=config.context_length,
        patch_length=model.config.patch_length,
        horizon=model.config.horizon,
        hide_readings=config.hide_readings,
    )


def validation_windows(
    model: XLSTM,
    series: Sequence[Tensor],
    columns: Sequence[Columns],
    n_train: Sequence[int],
    config: TrainingConfig,
) -> Windows | None:
    """Return windows that end in the tails; None where there is nothing to choose weights by."""
    tails, beside = [], []
    for one, other, count in zip(series, columns, n_train, strict=True):
        if count < len(one):
            tail = slice(max(0, count - config.context_length), None)
            tails.append(one[tail])
            beside.append(other.part(tail))
    if not tails:
        return None
    windows = window_sampler(model, tails, beside, config).spread(VALIDATION_WINDOWS)
    return None if windows.target[:, -1].isnan().all() else windows


@torch.no_grad()
def last_token_loss(run: Run, windows: Windows) -> float:
    """Return the loss of the last token alone: the forecast from a whole context."""
    model, device = run.model, run.model.embed.weight.device
    model.eval()
    own = run.processes.own(len(windows.groups))
    windows = Windows(*(part[own] for part in windows))
    loss, target = torch.zeros((), device=device), windows.target[:, -1].to(device)
    if len(target):
        # In float32 whatever training takes: so it is forecast from the weights that are chosen.
        parts = [_last_token(model, part.to(device)) for part in windows.split(VALIDATION_BATCH)]
        loss = pinball_loss(torch.cat(parts), target, model.levels)
    _, mean = run.processes.mean(loss, count=(~target.isnan()).sum())
    return mean.item()


def _last_token(model: XLSTM, windows: Windows) -> Tensor:
    inputs = (windows.value, windows.observed, windows.covariates)
    return model.forward_patches(*inputs, groups=windows.groups, last=True)[0][:, 0]
