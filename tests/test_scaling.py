"""Causal scaling: the closed form, the step and plain numpy are one thing."""

import numpy as np
import pytest
import torch

from xlstm_ts.scaling import Scaling, causal_scaling, decay, scaling_step


def start(rows: int, channels: int, dtype: torch.dtype = torch.float64) -> Scaling:
    return Scaling(*(torch.zeros(rows, channels, dtype=dtype) for _ in range(3)))


def by_steps(x: torch.Tensor, observed: torch.Tensor, span: float) -> Scaling:
    state, states = start(x.shape[0], x.shape[2], x.dtype), []
    for t in range(x.shape[1]):
        state = scaling_step(x[:, t], observed[:, t], state, span=span)
        states.append(state)
    return Scaling(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))


def series(length: int, *, level: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.float64).cumsum(1) + level
    observed = (torch.rand(2, length, 3) > 0.3).double()
    observed[0, :4] = 0
    return x * observed, observed


@pytest.mark.parametrize(("span", "length"), [(2, 2000), (8, 60), (168, 300)])
def test_closed_form_equals_steps(span: float, length: int) -> None:
    x, observed = series(length)
    closed = causal_scaling(x, observed, start(2, 3), span=span)
    for one, other in zip(closed, by_steps(x, observed, span), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_equals_weighted_moments_of_numpy() -> None:
    x, observed = series(40)
    closed = causal_scaling(x, observed, start(2, 3), span=10)
    t, seen = 33, observed[1, :34, 2].numpy().astype(bool)
    values = x[1, : t + 1, 2].numpy()[seen]
    weights = decay(10) ** np.arange(len(values))[::-1]
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    np.testing.assert_allclose(closed.mean[1, t, 2], mean, rtol=1e-12)
    np.testing.assert_allclose(closed.variance[1, t, 2], variance, rtol=1e-12)


@pytest.mark.parametrize("cut", [1, 3, 17])
def test_cutting_changes_nothing(cut: int) -> None:
    x, observed = series(30)
    whole = causal_scaling(x, observed, start(2, 3), span=8)
    head = causal_scaling(x[:, :cut], observed[:, :cut], start(2, 3), span=8)
    state = Scaling(*(part[:, -1] for part in head))
    tail = causal_scaling(x[:, cut:], observed[:, cut:], state, span=8)
    for one, a, b in zip(whole, head, tail, strict=True):
        torch.testing.assert_close(one, torch.cat((a, b), 1), atol=1e-12, rtol=1e-12)


def test_missing_reading_leaves_the_state_alone() -> None:
    state = Scaling(*(torch.full((1, 1), value) for value in (0.5, 3.0, 2.0)))
    after = scaling_step(torch.zeros(1, 1), torch.zeros(1, 1), state, span=8)
    assert all(torch.equal(one, other) for one, other in zip(after, state, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_high_level_does_not_cancel(dtype: torch.dtype) -> None:
    x, observed = series(300)
    truth = causal_scaling(x, observed, start(2, 3), span=50).variance
    lifted = (x + 1e4 * observed).to(dtype)
    got = causal_scaling(lifted, observed.to(dtype), start(2, 3, dtype), span=50).variance
    # The readings themselves are rounded to 1e4 * eps before anything is computed.
    bound = 1e4 * torch.finfo(dtype).eps * truth.max().sqrt() * 4
    assert (got.double() - truth).abs().max() < bound
