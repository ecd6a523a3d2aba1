"""The windows of a training, and the loss on the tail that chooses its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xlstm_ts.distribution import Processes
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.losses import pinball_loss
from xlstm_ts.model import XLSTM
from xlstm_ts.pools import Part, PoolSampler, Stored, cut_blocks, own_series, spread_places
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
    *,
    processes: Processes,
) -> Windows | None:
    """Return windows that end in the tails; None where there is nothing to choose weights by.

    They are those of this process.
    """
    tails, beside = [], []
    for one, other, count in zip(series, columns, n_train, strict=True):
        if count < len(one):
            tail = slice(max(0, count - config.context_length), None)
            tails.append(one[tail])
            beside.append(other.part(tail))
    if not tails:
        return None
    windows = window_sampler(model, tails, beside, config).spread(VALIDATION_WINDOWS)
    if windows.target[:, -1].isnan().all():
        return None
    return windows.rows(processes.own(len(windows.groups)))


def stored_windows(
    model: XLSTM,
    stored: Stored,
    n_train: Sequence[int],
    config: TrainingConfig,
    *,
    processes: Processes,
    seed: int,
) -> tuple[PoolSampler, Windows | None]:
    """Return windows to train on, and those of the tails, of the series of this process.

    Raises
    ------
    SeriesError
        In all processes, where one has no series to train on.
    """
    length = config.context_length + model.config.horizon
    series = own_series(n_train, length=length, own=processes.own)
    if processes.agree(stop=not any(n_train[n] for n in series)):
        raise SeriesError(
            f"{sum(map(bool, n_train))} series to train on are too few or too unequal for "
            f"{processes.count} processes, each of which reads its own; start fewer."
        )
    # Before anything is read: it refuses a pool that is too small.
    blocks = cut_blocks(n_train, series, length=length, pool_rows=stored.pool_rows)
    stored.prepare(series)

    def make(parts: list[Part]) -> WindowSampler:
        readings, columns = zip(*parts, strict=True)
        return window_sampler(model, readings, columns, config)

    sampler = PoolSampler(
        blocks,
        read=stored.read,
        make=make,
        max_steps=config.max_steps,
        seed=seed,
    )
    places = spread_places(
        stored.lengths,
        n_train,
        context_length=config.context_length,
        horizon=model.config.horizon,
        most=VALIDATION_WINDOWS,
    )
    if not places:
        return sampler, None
    own = [place for place in places if place.series in series]
    # Without one of its own a process takes part with no rows.
    windows = make(stored.read(own or places[:1])).spread(VALIDATION_WINDOWS).rows(slice(len(own)))
    has_target = not windows.target[:, -1].isnan().all()
    return sampler, windows if processes.agree(stop=has_target) else None


@torch.no_grad()
def last_token_loss(run: Run, windows: Windows) -> float:
    """Return the loss of the last token alone, the forecast from a whole context.

    Each process gives the windows that it has; the loss is that of all.
    """
    model, device = run.model, run.model.embed.weight.device
    model.eval()
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
