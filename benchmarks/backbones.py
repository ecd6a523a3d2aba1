"""Backbones of as many parameters side by side: what each can learn, its cost, its accuracy.

`python benchmarks/backbones.py`, or some `--parts` of it. One thread. The estimator, its data, its
steps and the count of its parameters are the same; what differs is in `_backbones.py`.

| part | what |
|---|---|
| tasks | parity, recall, nearest (`_tasks.py`): where each kind of cell wins and fails |
| cost | training on a context, and one more token after it, from 128 to 16,384 tokens |
| accuracy | ETTh1 and Weather 96 ahead (`forecast.py`), M4 Hourly (`panel.py`) |

`--plot FILE` draws the cost. Tasks take 25 minutes of a core, cost five, accuracy an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import forecast
import matplotlib.pyplot as plt
import pandas as pd
import panel
import torch
from _backbones import BACKBONES, WIDTH, Attention, width_like
from _report import Report
from _tasks import TASKS, Solver, solve
from matplotlib.ticker import NullLocator
from torch import Tensor

from xlstm_ts.config import XLSTMConfig
from xlstm_ts.phases import run
from xlstm_ts.state import State, initial_state

PARTS = ("tasks", "cost", "accuracy")
CONTEXTS = (128, 512, 2048, 16_384)
STYLES = ("o-", "s-", "^-", "v--", "<--", "D:", "x-.")  # legible without colours
# What the paper says of a part of the xLSTM, as a bar of a task: backbone, most or least.
CLAIMS = {
    "parity": [
        ("ss", None, 0.99),
        ("ms", None, 0.99),
        ("mm", 0.6, None),
        ("Transformer", 0.6, None),
    ],
    "recall": [("mm", None, 0.95), ("Transformer", None, 0.95), ("LSTM", 0.5, None)],
    "nearest": [("ss", 0.012, None), ("ms", 0.012, None), ("LSTM", None, 0.012)],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="file that the cost is drawn in")
    parser.add_argument("--quick", action="store_true", help="few steps, contexts up to 2,048")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report()
    if "tasks" in options.parts:
        _tasks(report, options)
    if "cost" in options.parts:
        _cost(report, options)
    if "accuracy" in options.parts:
        quick = ["--quick"] if options.quick else []
        shared = ["--seed", str(options.seed), *quick, "--blocks", *BACKBONES, ""]
        forecast.main(["--dataset", "ETTh1", *shared])
        forecast.main(["--dataset", "Weather", *shared])
        panel.main(shared)
    return report.finish(check=options.check)


def _tasks(report: Report, options: argparse.Namespace) -> None:
    for name, task in TASKS.items():
        steps = 20 if options.quick else task.steps
        bars = {} if options.quick else {claim[0]: claim[1:] for claim in CLAIMS[name]}
        for backbone in BACKBONES:
            torch.manual_seed(options.seed)
            config = _config(backbone)
            solver = Solver(task, BACKBONES[backbone].blocks(config), width=config.d_model)
            figure = solve(task, solver, steps=steps)
            most, least = bars.get(backbone, (None, None))
            report.add(f"{name}, {backbone}, {task.figure}", figure, most=most, least=least)


def _config(backbone: str) -> XLSTMConfig:
    return XLSTMConfig(n_channels=1, horizon=1, d_model=width_like(backbone, width=WIDTH))


class Cost(NamedTuple):
    """What a context costs: training, one more token, memory of a stream, memory of training."""

    train: float
    step: float
    state: float
    kept: float


UNITS = Cost("training, µs a token", "one more token, µs", "state, KiB", "kept to train, MiB")


def _cost(report: Report, options: argparse.Namespace) -> None:
    contexts = [length for length in CONTEXTS if not options.quick or length <= 2048]
    costs: dict[tuple[str, int], Cost] = {}
    for backbone in BACKBONES:
        measured = [_measure(backbone, length) for length in contexts]
        # In turns: the speed of a machine drifts, and what is asked is how they compare.
        steps = _in_turns([step for _, step in measured], rounds=200)
        for length, (cost, _), seconds in zip(contexts, measured, steps, strict=True):
            costs[backbone, length] = cost._replace(step=1e6 * seconds)
    for part, unit in enumerate(UNITS):
        rows = {key: cost[part] for key, cost in costs.items()}
        table = pd.Series(rows).unstack(sort=False)
        report.note(f"{unit}\n{table.to_string(float_format='{:.3g}'.format)}")
    first, last = contexts[0], contexts[-1]
    for backbone in BACKBONES:
        grown = costs[backbone, last].step / costs[backbone, first].step
        bar = {"most": 1.3} if backbone in ("mm", "ms", "ss") and not options.quick else {}
        report.add(f"{backbone}, one more token after {last:,} / after {first}", grown, **bar)
    if options.plot:
        _draw(costs, contexts, options.plot)


def _measure(backbone: str, length: int) -> tuple[Cost, Callable[[], None]]:
    """Return the cost of two blocks, one sequence, float32, and a step that is yet to be timed."""
    torch.manual_seed(0)
    config = _config(backbone)
    blocks, width = BACKBONES[backbone].blocks(config), config.d_model
    x, mask = torch.randn(1, length, width), torch.ones(1, length, dtype=torch.bool)
    fields = tuple(field for block in blocks for field in block.state_fields())
    start = initial_state(fields, 1, dtype=x.dtype, device=x.device)
    kept: dict[int, int] = {}

    def keep(part: Tensor) -> Tensor:
        storage = part.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return part

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        out, state = run(blocks, x, mask, start)
    del out

    def train() -> None:
        run(blocks, x, mask, start)[0].sum().backward()

    states = _states(blocks, state, length)
    token, there = torch.randn(1, width), torch.ones(1, dtype=torch.bool)

    @torch.inference_mode()
    def step() -> None:
        h = token
        for block, past in zip(blocks, states, strict=True):
            h, _ = block.step(h, past, there)

    size = sum(part.nbytes for past in states for part in past)
    cost = Cost(
        train=1e6 * _in_turns([train], rounds=3 + 4000 // length)[0] / length,
        step=float("nan"),
        state=size / 2**10,
        kept=sum(kept.values()) / 2**20,
    )
    return cost, step


def _states(blocks: torch.nn.ModuleList, state: State, length: int) -> list[State]:
    """Return the state of each block after `length` tokens."""
    states, rest = [], [part.detach() for part in state]
    for block in blocks:
        if isinstance(cell := getattr(block, "cell", None), Attention):
            states.append(cell.cache(1, length))
        else:
            count = len(block.state_fields())
            states.append(tuple(rest[:count]))
            rest = rest[count:]
    return states


def _in_turns(functions: list[Callable[[], None]], *, rounds: int) -> list[float]:
    """Return the median time of the processor of each, in seconds; the first round warms up."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
    return [median(taken[1:]) for taken in times]


def _draw(costs: dict[tuple[str, int], Cost], contexts: list[int], path: Path) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for part, axes in zip(("step", "state", "train"), panels, strict=True):
        for backbone, style in zip(BACKBONES, STYLES, strict=True):
            values = [getattr(costs[backbone, length], part) for length in contexts]
            axes.plot(contexts, values, style, label=backbone, markersize=4, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="context, tokens", ylabel=getattr(UNITS, part))
        axes.set_xticks(contexts, [f"{length:,}" for length in contexts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params("x", labelsize=7)
    panels[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
