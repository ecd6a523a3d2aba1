"""Training: random windows, dense pinball loss, early stopping on the tail, best weights kept."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from xlstm_ts.carrying import Carried, begin, follow
from xlstm_ts.checkpoints import Checkpoint
from xlstm_ts.checks import check_callable, check_integer, check_number, check_positive
from xlstm_ts.distribution import Processes
from xlstm_ts.exceptions import InterruptedWarning, TrainingError
from xlstm_ts.losses import pinball_loss
from xlstm_ts.model import XLSTM
from xlstm_ts.pools import PoolSampler, Stored
from xlstm_ts.runs import Record, Run
from xlstm_ts.state import State
from xlstm_ts.validation import (
    last_token_loss,
    stored_windows,
    validation_windows,
    window_sampler,
)
from xlstm_ts.windows import Columns, Windows, WindowSampler

WARM_UP_SHARE = 0.05
# Tokens of the first fifth of a context are not scored: they have seen too little.
UNSCORED_PART = 5

Callback = Callable[[Record], Any]


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
    callbacks : tuple of callable
        Called with the `Record` of each look; one that returns True stops the training.
    max_time : float or None
        Seconds after which no step begins; None is no limit.
    checkpoint : Checkpoint or None
        Where the training is kept at each look, and where it goes on from.
    stateful : bool
        Whether windows go on from the states that those before them left (`carrying`).
    hide_readings : bool
        Keep the readings as targets alone, to be told from the columns beside them.

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
    callbacks: tuple[Callback, ...] = ()
    max_time: float | None = None
    checkpoint: Checkpoint | None = None
    stateful: bool = False
    hide_readings: bool = False

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
        if not isinstance(self.stateful, bool | np.bool_):
            raise ValueError(f"`stateful` must be True or False, got {self.stateful!r}.")
        for callback in self.callbacks:
            check_callable("callbacks", callback)
        if self.max_time is not None:
            check_positive("max_time", self.max_time)


def train(
    model: XLSTM,
    series: Sequence[Tensor] | Stored,
    *,
    n_train: Sequence[int],
    config: TrainingConfig,
    generator: torch.Generator,
    columns: Sequence[Columns] | None = None,
    processes: Processes | None = None,
) -> list[Record]:
    """Train `model` in place and leave it with its best weights, in evaluation mode.

    Parameters
    ----------
    model : XLSTM
        The model, on the device that it is to be trained on.
    series : sequence of Tensor, or Stored
        Standardised readings `(T, C)` of each series, float32, NaN where missing; or what reads
        them, columns included.
    n_train : sequence of int
        Readings of each to train on; those after them are the validation tail, on which the best
        weights are chosen. Without a tail these are the last ones. Series with none are left out.
    config : TrainingConfig
        How to train.
    generator : torch.Generator
        Draws the windows; dropout draws from torch's global generator.
    columns : sequence of Columns, optional
        Raw covariates of each series, NaN where missing.
    processes : Processes, optional
        Those that train together, each called with the same; without them this one trains alone.

    Returns
    -------
    list of Record
        The losses at each look, those before a checkpoint included.

    Raises
    ------
    TrainingError
        Where the loss, looked at, is not finite.
    CheckpointError
        Where the file of the checkpoint is damaged or of another training.
    KeyboardInterrupt
        Where it comes before the first step is done; later it stops the training with an
        `InterruptedWarning`.
    """
    processes = Processes() if processes is None else processes
    if not isinstance(series, Stored):
        processes.check_same(series)
    run = _begin(model, config, generator, processes)
    sampler, validation = _windows(run, series, columns, n_train, config)
    silent = config.verbose < 1 or not processes.is_first
    with tqdm(total=config.max_steps, initial=run.step, disable=silent, desc="fit") as bar:
        loop = _Loop(
            run=run,
            config=config,
            sampler=sampler,
            validation=validation,
            bar=bar,
        )
        try:
            with processes.interruptible():
                loop.advance()
        except KeyboardInterrupt:
            if not run.step:
                raise
            if processes.is_first:
                _warn_interrupted(run.step, config)
        loop.close()
    run.finish()
    return run.records


def _windows(
    run: Run,
    series: Sequence[Tensor] | Stored,
    columns: Sequence[Columns] | None,
    n_train: Sequence[int],
    config: TrainingConfig,
) -> tuple[WindowSampler | PoolSampler, Windows | None]:
    """Return what cuts the windows of each step, and the windows of the tails."""
    model, processes = run.model, run.processes
    if isinstance(series, Stored):
        # The seed stays when the state of the generator goes into a checkpoint and back.
        seed = run.generator.initial_seed()
        return stored_windows(model, series, n_train, config, processes=processes, seed=seed)
    columns = [Columns.none(len(one)) for one in series] if columns is None else columns
    known = [one[:count] for one, count in zip(series, n_train, strict=True) if count]
    beside = [one.part(slice(count)) for one, count in zip(columns, n_train, strict=True) if count]
    sampler = window_sampler(model, known, beside, config)
    return sampler, validation_windows(model, series, columns, n_train, config, processes=processes)


def _begin(
    model: XLSTM, config: TrainingConfig, generator: torch.Generator, processes: Processes
) -> Run:
    """Return a run that goes on from the checkpoint, if there is one."""
    check_integer("batch_size", config.batch_size, least=processes.count)
    # A checkpoint holds the rates, as numbers of Python.
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=float(config.learning_rate),
        weight_decay=float(config.weight_decay),
    )
    schedule = LambdaLR(optimizer, lambda step: _rate(step, int(config.max_steps)))
    run = Run(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        generator=generator,
        processes=processes,
    )
    state = None if config.checkpoint is None else processes.first(config.checkpoint.read)
    if state is not None:
        run.restore(state)
    processes.part_ways()
    return run


def _warn_interrupted(step: int, config: TrainingConfig) -> None:
    message = f"Interrupted after step {step} of {config.max_steps}: the best weights so far stay."
    if config.checkpoint is not None and config.checkpoint.path.exists():
        message += f" The same fit goes on from the last look, in {config.checkpoint.path}."
    warnings.warn(message, InterruptedWarning, stacklevel=4)


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """The steps and looks of a run."""

    run: Run
    config: TrainingConfig
    sampler: WindowSampler | PoolSampler
    validation: Windows | None
    bar: tqdm[Any]

    def advance(self) -> None:
        """Train until all is done, a callback says stop, or time is up."""
        began, limit = time.monotonic(), self.config.max_time
        while not self._is_over():
            self._step()
            if self._is_due():
                self._look()
                self._keep()
                if self._tell():
                    break
            is_late = limit is not None and time.monotonic() - began > limit
            if self.run.processes.agree(stop=is_late):
                break
        self._settle()

    def close(self) -> None:
        """Look at what the steps since the last look have brought, if there are any."""
        # Never kept: the fit that goes on from the checkpoint would not have looked here.
        if self.run.losses:
            self._look()
            self._tell()

    def _is_over(self) -> bool:
        return self.run.is_over(max_steps=self.config.max_steps, patience=self.config.patience)

    def _is_due(self) -> bool:
        step = self.run.step
        return step % self.config.validation_every == 0 or step == self.config.max_steps

    def _step(self) -> None:
        run, config = self.run, self.config
        if config.stateful:
            loss = self._carry_on()
        else:
            own = run.processes.own(config.batch_size)
            sampler = self.sampler.at(run.step)
            windows = sampler.draw(config.batch_size, generator=run.generator, own=own)
            loss, _ = _update(run, windows, config=config)
        run.losses.append(loss)
        run.schedule.step()
        run.step += 1
        self.bar.update()

    def _carry_on(self) -> Tensor:
        """Take a step on the windows after those of the last one; return the loss."""
        run, config, sampler = self.run, self.config, self.sampler.at(self.run.step)
        size, model, generator = config.batch_size, run.model, run.generator
        own = run.processes.own(size)
        if run.carried is None:
            run.carried = begin(model, sampler, size=size, generator=generator, own=own)
        rows = run.carried
        mine = rows.of(own)
        windows = sampler.cut(mine.groups, mine.starts)
        loss, left = _update(run, windows, config=config, rows=mine)
        run.carried = follow(rows, left, model=model, sampler=sampler, generator=generator, own=own)
        return loss

    def _look(self) -> None:
        """Record the losses since the last look and on the tail, all of them finite."""
        run, tail = self.run, self.validation
        loss = torch.stack(run.losses).mean().item()
        # Without a tail, windows of the training part tell whether the last step diverged.
        windows = self._some_trained_on() if tail is None else tail
        judged = last_token_loss(run, windows)
        _check_finite(run.step, loss, judged)
        run.record(Record(run.step, loss, math.nan if tail is None else judged))
        self.bar.set_postfix(loss=loss, validation=run.records[-1].validation_loss)

    def _some_trained_on(self) -> Windows:
        windows = self.sampler.at(self.run.step).spread(self.config.batch_size)
        return windows.rows(self.run.processes.own(len(windows.groups)))

    def _keep(self) -> None:
        checkpoint = self.config.checkpoint
        if checkpoint is not None:
            state = self.run.state()
            self.run.processes.first(lambda: checkpoint.write(state))

    def _tell(self) -> bool:
        """Call the callbacks, all of them; say whether one wants to stop."""
        return self.run.processes.first(self._ask_callbacks)

    def _ask_callbacks(self) -> bool:
        answers = [callback(self.run.records[-1]) for callback in self.config.callbacks]
        # Only a truth value stops: a callback that writes to a file returns a count.
        return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)

    def _settle(self) -> None:
        """Drop the checkpoint of a complete training, bring that of another up to date."""
        if self.config.checkpoint is not None and self._is_over():
            self.run.processes.first(self.config.checkpoint.remove)
        elif self.run.losses:
            self._keep()


def _check_finite(step: int, *losses: float) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The fit diverged: the loss at step {step} is {loss}; lower `learning_rate` or "
                "`gradient_clip`."
            )


def _rate(step: int, max_steps: int) -> float:
    """Return the share of the learning rate in force: linear warm-up, then cosine to zero."""
    warm_up = max(1.0, WARM_UP_SHARE * max_steps)
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / max_steps))


def _update(
    run: Run, windows: Windows, *, config: TrainingConfig, rows: Carried | None = None
) -> tuple[Tensor, State]:
    """Take one step of the optimiser; return the loss of all scored tokens, and the state left."""
    model, optimizer = run.model, run.optimizer
    model.train()
    windows = windows.to(model.embed.weight.device)
    state = None if rows is None else rows.state
    parts = (windows.value, windows.observed, windows.covariates, state)
    with run.processes.autocast():
        forecast, left = run.forward(*parts, groups=windows.groups)
    # What is told from columns alone is asked for from the first row on.
    first = 0 if config.hide_readings else forecast.shape[1] // UNSCORED_PART
    target = windows.target
    if rows is None:
        forecast, target = forecast[:, first:], target[:, first:]
    else:
        early = torch.arange(target.shape[1], device=target.device) < first
        unscored = rows.is_fresh.to(target.device)[:, None] & early
        target = torch.where(unscored[..., None, None], torch.nan, target)
    loss = pinball_loss(forecast, target, model.levels)
    share, loss = run.processes.mean(loss, count=(~target.isnan()).sum())
    optimizer.zero_grad()
    share.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    optimizer.step()
    return loss, left
