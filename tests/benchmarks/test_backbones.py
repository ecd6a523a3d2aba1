from __future__ import annotations

import pytest
import torch

from benchmarks._backbones import BACKBONES, Attention, LinearScan, width_like
from benchmarks._tasks import KEYS, nearest, parity, recall
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.phases import run
from xlstm_ts.state import initial_state

WIDTH, LENGTH = 16, 70


def start(block, dtype=torch.float64):
    cell = getattr(block, "cell", None)
    if isinstance(cell, Attention):  # an empty cache with room for all
        keys, values, _ = cell.cache(2, LENGTH)
        return keys.to(dtype), values.to(dtype), torch.tensor(0)
    return initial_state(block.state_fields(), 2, dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_steps_as_it_runs(name):
    torch.manual_seed(0)
    config = XLSTMConfig(n_channels=1, horizon=1, d_model=WIDTH)
    blocks = BACKBONES[name].blocks(config).double()
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    there = torch.ones(2, LENGTH, dtype=torch.bool)
    cold = [start(block) for block in blocks]
    cells = [
        part
        for block, past in zip(blocks, cold, strict=True)
        if block.state_fields()
        for part in past
    ]
    whole, _ = run(blocks, x, there, tuple(cells))
    changed = x.clone()
    changed[:, 40:] += 1
    assert torch.equal(run(blocks, changed, there, cells)[0][:, :40], whole[:, :40])
    for t in range(LENGTH):
        h = x[:, t]
        for j, block in enumerate(blocks):
            h, cold[j] = block.step(h, cold[j], there[:, t])
        torch.testing.assert_close(h, whole[:, t])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_as_many_parameters(name):
    config = XLSTMConfig(n_channels=1, horizon=1, d_model=width_like(name, width=64))
    blocks, of_mm = (
        BACKBONES[one].blocks(shape)
        for one, shape in ((name, config), ("mm", XLSTMConfig(n_channels=1, horizon=1)))
    )
    counts = [sum(weight.numel() for weight in stack.parameters()) for stack in (blocks, of_mm)]
    assert counts[0] == pytest.approx(counts[1], rel=0.06)


def test_the_selective_scan_is_its_loop():
    torch.manual_seed(0)
    shape = (2, 7, 3)
    parts = [torch.rand(*shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    before = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    h, last = [], before
    for t in range(shape[1]):
        last = parts[0][:, t] * last + parts[1][:, t]
        h.append(last)
    torch.testing.assert_close(LinearScan.apply(*parts, before), torch.stack(h, 1))
    assert torch.autograd.gradcheck(LinearScan.apply, (*parts, before))


def test_targets_of_the_tasks():
    torch.manual_seed(0)
    bits = parity(9)
    assert bits.targets[:, -1].tolist() == [row[:, 1].sum() % 2 for row in bits.inputs]
    asked = recall(5)
    for tokens, targets, counts in zip(*asked, strict=True):
        keys, values = tokens[:, :KEYS].argmax(1), tokens[:, KEYS:].argmax(1)
        assert counts.tolist() == [False] * 5 + [True] * 5
        assert not tokens[5:, KEYS:].any()
        pairs = dict(zip(keys[:5].tolist(), values[:5].tolist(), strict=True))
        assert len(pairs) == 5
        assert [pairs[key] for key in keys[5:].tolist()] == targets[5:].tolist()
    seen = nearest(6)
    for tokens, targets in zip(seen.inputs, seen.targets, strict=True):
        distances = (tokens[:, :2] - tokens[:, 2:4]).norm(dim=1)
        for t in range(6):
            assert targets[t] == tokens[int(distances[: t + 1].argmin()), 4]
