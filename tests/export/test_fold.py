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


@torch.no_grad()
def largest_gate(block, tokens: torch.Tensor) -> float:
    inside, _ = block.up(block.norm(tokens)).chunk(2, -1)
    mixed = inside
    if block.cell.conv is not None:
        start = torch.zeros(len(tokens), 3, inside.shape[-1], dtype=torch.float64)
        mixed, _ = block.cell.conv(inside, start)
    return block.cell._inputs(inside, mixed)[3].max().item()


@pytest.mark.parametrize("name", ["plain", "patch", "no convolution"])
def test_no_input_gate_exceeds_its_bound(name: str) -> None:
    model = build_model(name)
    for block in model.blocks:
        tokens = 100 * torch.randn(2000, 8, 8, dtype=torch.float64)
        assert largest_gate(block, tokens) <= bound_of(block)


@pytest.mark.parametrize("sign", [1, -1])
@torch.no_grad()
def test_the_bound_is_reached(sign: int) -> None:
    """One unit of the inside, seen by one gate: the worst token can be given."""
    model = build_model("plain")
    block, direction = model.blocks[0], torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1]).double()
    layer = block.cell
    for weight in (block.up.weight, layer.query_key.weight, layer.gates.weight):
        weight.zero_()
    block.norm.weight.fill_(3)
    block.up.weight[0] = direction
    layer.conv.bias.fill_(2)
    layer.conv.weight.abs_()
    layer.query_key.weight[0, 0] = 1
    layer.gates.weight[0, 0] = sign
    layer.gates.bias.zero_()
    bound = bound_of(block)
    # From one end of the line to the other: silu is largest at the end, smallest in between.
    share = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None]
    across = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1]).double()
    tokens = 100 * (share * direction + (1 - share**2).sqrt() * across)
    largest = largest_gate(block, tokens[:, None].expand(-1, 8, -1))
    assert bound - 1e-3 <= largest <= bound


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
