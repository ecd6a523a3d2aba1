"""The pinball loss is that of the field, and what is missing counts for nothing."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss

from xlstm_ts.losses import pinball_loss

LEVELS = (0.05, 0.3, 0.5, 0.8)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("level", LEVELS)
def test_one_level_is_the_loss_of_the_field(level: float) -> None:
    forecast, target = draw(40, 1), draw(40) * 2
    got = pinball_loss(forecast, target, torch.tensor([level]).double())
    expected = 2 * mean_pinball_loss(target.numpy(), forecast[:, 0].numpy(), alpha=level)
    # The level itself is float32, as it is in a model.
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_levels_and_axes_are_averaged() -> None:
    forecast, target = draw(2, 3, 5, 4), draw(2, 3, 5) * 2
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    error = target.numpy()[..., None] - forecast.numpy()
    taken = np.where(error >= 0, np.array(LEVELS) * error, (np.array(LEVELS) - 1) * error)
    expected = 2 * taken.mean()
    assert pinball_loss(forecast, target, levels).item() == pytest.approx(expected, rel=1e-12)


def test_the_median_is_the_absolute_error() -> None:
    forecast, target = draw(30, 1), draw(30) * 3
    got = pinball_loss(forecast, target, torch.tensor([0.5]).double())
    torch.testing.assert_close(got, (forecast[:, 0] - target).abs().mean())


def test_missing_targets_count_for_nothing() -> None:
    forecast = torch.zeros(4, 1, requires_grad=True)
    target = torch.tensor([1.0, torch.nan, 3.0, torch.nan])
    loss = pinball_loss(forecast, target, torch.tensor([0.5]))
    assert loss.item() == 2.0
    loss.backward()
    assert forecast.grad[:, 0].tolist() == [-0.5, 0, -0.5, 0]


def test_nothing_but_missing_targets_gives_no_gradient() -> None:
    forecast = torch.ones(4, 2, requires_grad=True)
    loss = pinball_loss(forecast, torch.full((4,), torch.nan), torch.tensor([0.1, 0.9]))
    loss.backward()
    assert loss.item() == 0
    assert (forecast.grad == 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_gradient_pulls_to_the_quantile(level: float) -> None:
    target = draw(1001)
    forecast = target.quantile(level).reshape(1, 1).expand(1001, 1).clone().requires_grad_()
    pinball_loss(forecast, target, torch.tensor([level]).double()).backward()
    # At the empirical quantile the pulls of both sides cancel but for the one reading there.
    assert abs(forecast.grad.sum().item()) <= 2 / 1001 + 1e-7
    assert torch.autograd.gradcheck(
        lambda f: pinball_loss(f, target[:9], torch.tensor([level]).double()),
        draw(9, 1).requires_grad_() + 0.05,
    )
