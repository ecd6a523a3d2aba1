"""One run of training: everything that its steps change, in a form that a file can hold."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xlstm_ts.carrying import Carried
from xlstm_ts.distribution import Processes
from xlstm_ts.model import XLSTM


class Record(NamedTuple):
    """One look at the losses, in standardised units; the second is NaN without a tail."""

    step: int
    loss: float
    validation_loss: float


@dataclass
class Best:
    """The weights with the lowest validation loss so far, and the looks without a better one."""

    loss: float = math.inf
    weights: dict[str, Tensor] | None = field(default=None, repr=False)
    looks_since: int = 0

    def look(self, model: XLSTM, loss: float) -> None:
        """Look at a loss and keep the weights if it is the best; NaN tells nothing."""
        if math.isnan(loss):
            return
        self.looks_since += 1
        if loss < self.loss:
            self.loss, self.looks_since = loss, 0
            self.weights = copy.deepcopy(model.state_dict())


@dataclass(kw_only=True)
class Run:
    """A training in progress.

    Parameters
    ----------
    model : XLSTM
        The model that is trained in place.
    optimizer, schedule : Optimizer, LRScheduler
        What moves its weights.
    generator : torch.Generator
        Draws the windows; dropout draws from torch's global generators, which belong to the run.
    step : int
        Steps done.
    losses : list of Tensor
        The loss of each step since the last look.
    records : list of Record
        The looks.
    best : Best
        The best weights.
    carried : Carried or None
        In stateful training, the rows of the next batch, with the states of the own ones.
    processes : Processes
        Who else takes part.
    """

    model: XLSTM
    optimizer: Optimizer
    schedule: LRScheduler
    generator: torch.Generator
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    carried: Carried | None = None
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        """Join the model with those of the other processes."""
        self.forward = self.processes.wrap(self.model)

    def is_over(self, *, max_steps: int, patience: int | None) -> bool:
        """Say whether all steps are done, or too many looks brought nothing better."""
        exhausted = patience is not None and self.best.looks_since >= patience
        return exhausted or self.step >= max_steps

    def record(self, record: Record) -> None:
        """Take in a look."""
        self.records.append(record)
        self.losses.clear()
        self.best.look(self.model, record.validation_loss)

    def finish(self) -> None:
        """Leave the model with its best weights, in evaluation mode."""
        if self.best.weights is not None:
            self.model.load_state_dict(self.best.weights)
        self.model.eval()

    def state(self) -> dict[str, Any]:
        """Return all that the next steps follow from: tensors, numbers and text alone.

        All processes have to ask; what any of them gets serves any number of them.
        """
        device = self.model.embed.weight.device
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "windows": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "step": self.step,
            "losses": [loss.item() for loss in self.losses],
            "records": [tuple(record) for record in self.records],
            "best": vars(self.best),
            "carried": None if self.carried is None else self._all_carried(self.carried),
        }

    def _all_carried(self, rows: Carried) -> tuple[Any, ...]:
        size = len(rows.starts)
        state = tuple(self.processes.whole(part, size=size) for part in rows.state)
        return tuple(rows._replace(state=state))

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        weight = self.model.embed.weight
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["windows"])
        torch.set_rng_state(state["dropout"])
        if weight.device.type == "cuda" and state["dropout_cuda"] is not None:
            torch.cuda.set_rng_state(state["dropout_cuda"], weight.device)
        self.step = state["step"]
        self.losses = [weight.new_tensor(loss) for loss in state["losses"]]
        self.records = [Record(*record) for record in state["records"]]
        self.best = Best(**state["best"])
        if state["carried"] is not None:
            groups, starts, is_fresh, left = state["carried"]
            own = self.processes.own(len(starts))
            left = tuple(part[own].to(weight.device) for part in left)
            self.carried = Carried(groups, starts, is_fresh, left)
