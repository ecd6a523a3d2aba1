"""Folded weights: the bound of the input gate holds, and is no excuse to give up early."""

import pytest
import torch

from tests.conftest import build_model
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.export import fold
from xlstm_ts.model import XLSTM


def bound_of(block) -> float:
    """Return the bound that decides: the least limit under which the block counts as bounded."""
    low, high = -100.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fold, "LARGEST_INPUT_GATE", middle)
            low, high = (low, middle) if fold.fold_mlstm(block).bounded else (middle, high)
    return high


@pytest.mark.parametrize("name", ["plain", "patch"])
@torch.no_grad()
def test_no_input_gate_exceeds_its_bound(name: str) -> None:
    model = build_model(name)
    for block in model.blocks:
        bound = bound_of(block)
        tokens = 100 * torch.randn(2000, 8, 8, dtype=torch.float64)
        inside, _ = block.up(block.norm(tokens)).chunk(2, -1)
        history = torch.zeros(2000, 3, 8, dtype=torch.float64)
        mixed, _ = block.cell.conv(inside, history)
        i = block.cell._inputs(inside, mixed)[3]
        assert i.max() <= bound
        assert i.max() >= bound - 10  # a bound, not a number of comfort


def test_fresh_models_need_no_stabiliser() -> None:
    torch.manual_seed(0)
    model = XLSTM(XLSTMConfig(n_channels=1, horizon=2))
    assert all(fold.fold_mlstm(block).bounded for block in model.blocks)


@torch.no_grad()
def test_open_gates_need_one() -> None:
    model = build_model("plain")
    for block in model.blocks:
        block.cell.gates.weight *= 100
        assert not fold.fold_mlstm(block).bounded
