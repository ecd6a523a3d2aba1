"""Three tasks that tell what a part of an xLSTM is for, after Beck et al. (2024), section 4.1.

| task | asks for | the part of it |
|---|---|---|
| parity | a state that each token turns, for ever | sLSTM: memory mixing |
| recall | many pairs to be held at once | mLSTM: matrix memory |
| nearest | a stored value to be revised | exponential gating |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.phases import run
from xlstm_ts.state import initial_state

BATCH = 64
KEYS, VALUES = 64, 64


class Examples(NamedTuple):
    """Inputs `(S, N, inputs)`, targets `(S, N)` and which of them count, `(S, N)`."""

    inputs: Tensor
    targets: Tensor
    counts: Tensor


class Task(NamedTuple):
    """What to learn: examples of sizes in training, and of one in the judgement.

    `outputs` are classes; 1 is a number. `trained` are the least size and the largest.
    """

    draw: Callable[[int], Examples]
    inputs: int
    outputs: int
    trained: tuple[int, int]
    judged: int
    steps: int
    learning_rate: float = 3e-3

    @property
    def figure(self) -> str:
        """What it is judged by."""
        return "mean squared error" if self.outputs == 1 else "accuracy"


def parity(length: int) -> Examples:
    """Tell at each bit whether there were an odd number of ones (Deletang et al. 2023)."""
    bits = torch.randint(2, (BATCH, length))
    targets = bits.cumsum(1) % 2
    return Examples(F.one_hot(bits, 2).float(), targets, torch.ones_like(bits, dtype=torch.bool))


def recall(pairs: int) -> Examples:
    """Tell the value of each key, asked for in another order (after Arora et al. 2023).

    Key and value stand in one token: to join them is no part of the task.
    """
    keys = torch.rand(BATCH, KEYS).argsort(1)[:, :pairs]
    values = torch.randint(VALUES, (BATCH, pairs))
    order = torch.rand(BATCH, pairs).argsort(1)
    asked = F.pad(F.one_hot(keys.gather(1, order), KEYS), (0, VALUES))
    shown = torch.cat((F.one_hot(keys, KEYS), F.one_hot(values, VALUES)), 2)
    targets = torch.cat((torch.zeros_like(values), values.gather(1, order)), 1)
    counts = (torch.arange(2 * pairs) >= pairs).expand(BATCH, -1)
    return Examples(torch.cat((shown, asked), 1).float(), targets, counts)


def nearest(length: int) -> Examples:
    """Tell the value beside the vector that is the nearest so far to a reference.

    The reference stands beside each token: to hold it is no part of the task.
    """
    reference, vectors = torch.randn(BATCH, 1, 2), torch.randn(BATCH, length, 2)
    values = torch.rand(BATCH, length)
    best = (vectors - reference).square().sum(2).cummin(1).indices
    inputs = torch.cat((reference.expand_as(vectors), vectors, values.unsqueeze(2)), 2)
    return Examples(inputs, values.gather(1, best), torch.ones_like(values, dtype=torch.bool))


TASKS = {
    "parity": Task(parity, 2, 2, trained=(2, 40), judged=256, steps=800, learning_rate=1e-2),
    "recall": Task(recall, KEYS + VALUES, VALUES, trained=(1, 32), judged=32, steps=1500),
    "nearest": Task(nearest, 5, 1, trained=(64, 64), judged=64, steps=700, learning_rate=1e-2),
}


class Solver(nn.Module):
    """Blocks of a width between two linear maps."""

    def __init__(self, task: Task, blocks: nn.ModuleList, *, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(task.inputs, width)
        self.blocks = blocks
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, task.outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is told at each token, `(S, N, outputs)`."""
        fields = tuple(field for block in self.blocks for field in block.state_fields())
        like = self.embed.weight
        state = initial_state(fields, len(inputs), dtype=like.dtype, device=like.device)
        there = torch.ones(inputs.shape[:2], dtype=torch.bool)
        x, _ = run(self.blocks, self.embed(inputs), there, state)
        out: Tensor = self.head(self.norm(x))
        return out


def solve(task: Task, solver: Solver, *, steps: int) -> float:
    """Train on a task; return the accuracy, or the mean squared error of numbers."""
    optimizer = torch.optim.AdamW(solver.parameters(), lr=task.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.learning_rate, steps)
    for _ in range(steps):
        examples = task.draw(int(torch.randint(task.trained[0], task.trained[1] + 1, ())))
        out = solver(examples.inputs)[examples.counts]
        wanted = examples.targets[examples.counts]
        loss = F.mse_loss(out[:, 0], wanted) if task.outputs == 1 else F.cross_entropy(out, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return _judge(solver, task)


@torch.inference_mode()
def _judge(solver: Solver, task: Task) -> float:
    """Judge every token that counts of new examples."""
    torch.manual_seed(12_345)
    figures = []
    for _ in range(8):
        examples = task.draw(task.judged)
        out = solver(examples.inputs)[examples.counts]
        wanted = examples.targets[examples.counts]
        right = (out[:, 0] - wanted).square() if task.outputs == 1 else out.argmax(1) == wanted
        figures.append(right.double().mean())
    return float(torch.stack(figures).mean())
