"""Causal scaling: the closed form, the step and plain numpy are one thing."""

import numpy as np
import pytest
import torch

from xlstm_ts.scaling import VARIANCE_FLOOR, Scaling, causal_scaling, memory, scaling_step

SPANS = [(2, 2000), (2.5, 300), (8, 60), (168, 300), (168, 3), (8, 1)]


def start(rows: int, channels: int, dtype: torch.dtype = torch.float64) -> Scaling:
    return Scaling(*(torch.zeros(rows, channels, dtype=dtype) for _ in range(3)))


def by_steps(x: torch.Tensor, observed: torch.Tensor, state: Scaling, *, span: float) -> Scaling:
    states = []
    for t in range(x.shape[1]):
        state = scaling_step(x[:, t], observed[:, t], state, span=span)
        states.append(state)
    return Scaling(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))


def by_numpy(values: np.ndarray, *, span: float) -> tuple[float, float]:
    """Return weighted mean and variance of observed readings, summed as the definition says."""
    longest, number = memory(span), np.arange(1, len(values) + 1)
    rho = 1 - 1 / longest
    # Each reading past the first N leaves rho of the weights before it; the first N weigh alike.
    weights = rho ** (max(len(values) - longest, 0) - np.maximum(number - longest, 0.0))
    mean = np.average(values, weights=weights)
    return mean, np.average((values - mean) ** 2, weights=weights)


def series(length: int, *, level: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.float64).cumsum(1) + level
    observed = (torch.rand(2, length, 3) > 0.3).double()
    observed[0, :4] = 0
    observed[1, length // 3 : length // 2] = 0
    return x * observed, observed


def last(scaling: Scaling) -> Scaling:
    return Scaling(*(part[:, -1] for part in scaling))


@pytest.mark.parametrize(("span", "length"), SPANS)
@pytest.mark.parametrize("carried", [False, True])
def test_closed_form_equals_steps(span: float, length: int, carried: bool) -> None:
    x, observed = series(length)
    state = start(2, 3)
    if carried:
        state = last(by_steps(*series(25, level=5), state, span=span))
    closed = causal_scaling(x, observed, state, span=span)
    for one, other in zip(closed, by_steps(x, observed, state, span=span), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("span", "length"), SPANS)
@pytest.mark.parametrize("run", [causal_scaling, by_steps])
def test_equals_weighted_moments_of_numpy(run, span: float, length: int) -> None:
    x, observed = series(length)
    got = run(x, observed, start(2, 3), span=span)
    for t in {0, length // 2, length - 1}:
        for row, channel in ((0, 0), (1, 2)):
            seen = observed[row, : t + 1, channel].numpy().astype(bool)
            values = x[row, : t + 1, channel].numpy()[seen]
            if not len(values):
                assert got.mean[row, t, channel] == got.variance[row, t, channel] == 0
                continue
            mean, variance = by_numpy(values, span=span)
            np.testing.assert_allclose(got.mean[row, t, channel], mean, rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(
                got.variance[row, t, channel], variance, rtol=1e-11, atol=1e-11
            )


@pytest.mark.parametrize(("span", "length"), [(8, 30), (2, 700)])
def test_cutting_changes_nothing(span: float, length: int) -> None:
    x, observed = series(length)
    whole = causal_scaling(x, observed, start(2, 3), span=span)
    for cut in range(1, length, max(1, length // 29)):
        head = causal_scaling(x[:, :cut], observed[:, :cut], start(2, 3), span=span)
        tail = causal_scaling(x[:, cut:], observed[:, cut:], last(head), span=span)
        for one, a, b in zip(whole, head, tail, strict=True):
            torch.testing.assert_close(one, torch.cat((a, b), 1), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("garbage", [0.0, 1e6])
def test_missing_reading_leaves_the_state_alone(garbage: float) -> None:
    state = Scaling(*(torch.full((1, 1), value) for value in (2.0, 3.0, 2.0)))
    x, observed = torch.full((1, 5, 1), garbage), torch.zeros(1, 5, 1)
    after = scaling_step(x[:, 0], observed[:, 0], state, span=8)
    assert all(torch.equal(one, other) for one, other in zip(after, state, strict=True))
    closed = last(causal_scaling(x.double(), observed.double(), state, span=8))
    for one, other in zip(closed, state, strict=True):
        torch.testing.assert_close(one, other.double(), atol=1e-12, rtol=1e-12)


def test_what_stands_in_a_gap_is_never_used() -> None:
    x, observed = series(40)
    garbage = torch.where(observed > 0, x, 123.0)
    for run in (causal_scaling, by_steps):
        clean, dirty = (run(part, observed, start(2, 3), span=8) for part in (x, garbage))
        for one, other in zip(clean, dirty, strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_nothing_later_matters() -> None:
    x, observed = series(30)
    x.requires_grad_()
    for t in (0, 9, 29):
        scaling = causal_scaling(x, observed, start(2, 3), span=8)
        total = scaling.mean[:, t].sum() + scaling.variance[:, t].sum()
        (gradient,) = torch.autograd.grad(total, x)
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[observed == 0] == 0).all()


@pytest.mark.parametrize("run", [causal_scaling, by_steps])
@pytest.mark.parametrize(
    ("dtype", "level"), [(torch.float32, 1e4), (torch.float64, 1e6), (torch.float32, 1e6)]
)
def test_high_level_does_not_cancel(run, dtype: torch.dtype, level: float) -> None:
    x, observed = series(300)
    x = x / x.std()
    truth = causal_scaling(x, observed, start(2, 3), span=50).variance
    lifted = (x + level * observed).to(dtype)
    got = run(lifted, observed.to(dtype), start(2, 3, dtype), span=50).variance
    # Readings and the running mean are each rounded to half an ulp of the level; a shift d of
    # either moves the variance by at most 2 d sqrt(variance) + d * d.
    shift = level * torch.finfo(dtype).eps
    bound = 2 * shift * truth.max().sqrt() + shift**2
    assert (got.double() - truth).abs().max() <= 2 * bound


def test_mean_of_few_readings_is_plain() -> None:
    x, observed = torch.arange(4.0).reshape(1, 4, 1), torch.ones(1, 4, 1)
    assert causal_scaling(x, observed, start(1, 1), span=9).mean.flatten().tolist() == [
        0, 0.5, 1, 1.5,
    ]  # fmt: skip
    assert memory(9) == 5


@pytest.mark.parametrize("span", [2, 24, 168, 5000])
def test_single_precision_step_stays_near(span: float) -> None:
    x, observed = series(5000)
    x = x - x.mean(1, keepdim=True)
    truth = causal_scaling(x, observed, start(2, 3), span=span)
    single = by_steps(x.float(), observed.float(), start(2, 3, torch.float32), span=span)
    torch.testing.assert_close(single.seen, truth.seen.float(), atol=0, rtol=0)
    # Each step rounds by an ulp and forgets at the rate of the span: errors add up to span ulps.
    eps = torch.finfo(torch.float32).eps
    for one, other in zip(single, truth, strict=True):
        assert (one - other).abs().max() <= 2 * span * eps * other.abs().max()


def test_a_far_first_reading_is_forgotten_by_both_forms() -> None:
    x, observed = series(1000)
    x[:, 0], observed[:, 0] = 1e8, 1
    closed = causal_scaling(x, observed, start(2, 3), span=7)
    torch.testing.assert_close(
        closed, by_steps(x, observed, start(2, 3), span=7), rtol=1e-6, atol=0
    )


def test_flat_readings_keep_a_scale() -> None:
    x = torch.full((1, 50, 1), 3.0, dtype=torch.float64)
    scaling = causal_scaling(x, torch.ones_like(x), start(1, 1), span=8)
    torch.testing.assert_close(scaling.mean, x, atol=1e-12, rtol=0)
    torch.testing.assert_close(scaling.scale, torch.full_like(x, VARIANCE_FLOOR**0.5))


def test_first_reading_is_the_mean() -> None:
    x, one = torch.tensor([[5.0]]), torch.ones(1, 1)
    state = scaling_step(x, one, start(1, 1, torch.float32), span=168)
    assert state.mean.item() == pytest.approx(5, rel=1e-6)
    assert state.variance.item() == pytest.approx(0, abs=25 * torch.finfo(torch.float32).eps)
