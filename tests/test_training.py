"""Windows, loss and the ladder of training."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss

from xlstm_ts.losses import pinball_loss
from xlstm_ts.training import _rate
from xlstm_ts.windows import WindowSampler


def test_targets_follow_their_tokens() -> None:
    series = torch.arange(60.0)[:, None] + torch.tensor([0.0, 1000.0])
    sampler = WindowSampler(series, groups=2, context_length=12, patch_length=3, horizon=4)
    windows = sampler.draw(50, generator=torch.Generator().manual_seed(0))
    ends = windows.value[:, 2::3, 0]
    expected = ends[..., None] + torch.arange(1, 5)
    torch.testing.assert_close(windows.target[..., 0], expected)
    assert (windows.value[:, 0, 0] >= 1000).any()
    assert (windows.value[:, 0, 0] < 1000).any()
    assert sampler.starts == 60 - 12 - 4 + 1


def test_spread_scores_only_the_tail() -> None:
    series = torch.arange(60.0)[:, None]
    sampler = WindowSampler(series, groups=1, context_length=12, patch_length=3, horizon=4)
    windows = sampler.spread(1000, first=40 - 12)
    last = windows.target[:, -1]
    assert last.min() == 40
    assert last.max() == 59


def test_gaps_are_marked() -> None:
    series = torch.ones(30, 1)
    series[::5] = torch.nan
    sampler = WindowSampler(series, groups=1, context_length=10, patch_length=1, horizon=3)
    windows = sampler.cut(torch.tensor([0]), torch.tensor([0]))
    assert windows.observed[0, :, 0].tolist() == [0, 1, 1, 1, 1] * 2
    assert windows.value[0, :, 0].tolist() == [0, 1, 1, 1, 1] * 2
    assert windows.target[0, 4].isnan().flatten().tolist() == [True, False, False]


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_pinball_loss_is_that_of_the_field(level: float) -> None:
    torch.manual_seed(0)
    forecast, target = torch.randn(40, 1), torch.randn(40)
    got = pinball_loss(forecast, target, torch.tensor([level]))
    expected = 2 * mean_pinball_loss(target.numpy(), forecast[:, 0].numpy(), alpha=level)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_missing_targets_count_for_nothing() -> None:
    forecast = torch.zeros(4, 1, requires_grad=True)
    target = torch.tensor([1.0, torch.nan, 3.0, torch.nan])
    loss = pinball_loss(forecast, target, torch.tensor([0.5]))
    assert loss.item() == 2.0
    loss.backward()
    assert forecast.grad[:, 0].tolist() == [-0.5, 0, -0.5, 0]
    assert pinball_loss(forecast, torch.full((4,), torch.nan), torch.tensor([0.5])).item() == 0


def test_rate_warms_up_and_falls_to_zero() -> None:
    rates = np.array([_rate(step, 1000) for step in range(1001)])
    assert rates[0] == pytest.approx(1 / 50, rel=1e-3)
    assert rates.argmax() == 49
    assert (np.diff(rates[50:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-12)
