"""The stack of blocks over tokens that end at every reading.

A token continues from the state of the one `period` readings before it, so there are as many
sequences of tokens as phases of a patch. Each cell state has an axis of phases, oldest first.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from xlstm_ts.blocks import Block
from xlstm_ts.state import State


def run(blocks: nn.ModuleList, x: Tensor, mask: Tensor, cells: State) -> tuple[Tensor, State]:
    """Run rows of tokens `(rows, N, E)` of one phase each, parallel over N.

    `mask` `(rows, N)` says which tokens are there; `cells` have no axis of phases.
    """
    new: list[Tensor] = []
    for block, state in _by_block(blocks, cells):
        x, state = block(x, state, mask)
        new.extend(state)
    return x, tuple(new)


def unroll(
    blocks: nn.ModuleList, x: Tensor, mask: Tensor, cells: State, *, period: int
) -> tuple[Tensor, State]:
    """Run tokens `(S, N, E)` of successive readings: each phase is a row of its own."""
    rows, length = mask.shape
    whole = length - length % period
    outputs = []
    if whole:
        shape = (whole // period, period)
        row_x, row_mask = (
            part[:, :whole].unflatten(1, shape).transpose(1, 2).flatten(0, 1) for part in (x, mask)
        )
        out, ends = run(blocks, row_x, row_mask, tuple(part.flatten(0, 1) for part in cells))
        cells = tuple(part.unflatten(0, (rows, period)) for part in ends)
        outputs.append(out.unflatten(0, (rows, period)).transpose(1, 2).flatten(1, 2))
    if rest := length - whole:
        row_x, row_mask = (part[:, whole:].flatten(0, 1).unsqueeze(1) for part in (x, mask))
        oldest = tuple(part[:, :rest].flatten(0, 1) for part in cells)
        out, ends = run(blocks, row_x, row_mask, oldest)
        fresh = (part.unflatten(0, (rows, rest)) for part in ends)
        cells = tuple(
            torch.cat((part[:, rest:], new), 1) for part, new in zip(cells, fresh, strict=True)
        )
        outputs.append(out.unflatten(0, (rows, rest)).squeeze(2))
    return torch.cat(outputs, 1), cells


def advance(blocks: nn.ModuleList, x: Tensor, mask: Tensor, cells: State) -> tuple[Tensor, State]:
    """Take one token `(S, E)` from the oldest phase; what it leaves becomes the newest."""
    new: list[Tensor] = []
    for block, queue in _by_block(blocks, cells):
        x, state = block.step(x, tuple(part[:, 0] for part in queue), mask)
        new.extend(
            torch.cat((part[:, 1:], end.unsqueeze(1)), 1)
            for part, end in zip(queue, state, strict=True)
        )
    return x, tuple(new)


def _by_block(blocks: nn.ModuleList, cells: State) -> list[tuple[Block, State]]:
    """Pair each block with its part of the state."""
    pairs, start = [], 0
    for block in cast("list[Block]", list(blocks)):
        stop = start + len(block.state_fields())
        pairs.append((block, cells[start:stop]))
        start = stop
    return pairs
