"""Dtypes and the edges of their range, and inputs that are laid out in unusual ways."""

import pytest
import torch

from xlstm_ts.kernels import ops
from xlstm_ts.kernels.states import MLSTMState, SLSTMState, mlstm_initial_state


def mlstm_inputs(T: int, *, dtype: torch.dtype, B: int = 2, H: int = 2, D: int = 8):
    torch.manual_seed(T)
    inputs = [torch.randn(B, T, H, D) for _ in range(3)]
    inputs += [torch.randn(B, T, H) - 2, torch.randn(B, T, H) + 3]
    return [x.to(dtype) for x in inputs]


def slstm_inputs(T: int, *, dtype: torch.dtype, B: int = 2, H: int = 2, D: int = 8):
    torch.manual_seed(T)
    inputs = [torch.randn(B, T, 4, H, D), torch.randn(H, 4, D, D) / D, torch.randn(4, H, D)]
    return [x.to(dtype) for x in inputs]


CELLS = [
    pytest.param(ops.mlstm, mlstm_inputs, id="mlstm"),
    pytest.param(ops.slstm, slstm_inputs, id="slstm"),
]


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_half_precision_is_computed_in_float32(run, draw) -> None:
    inputs = draw(33, dtype=torch.bfloat16)
    h, state = run(*inputs)
    expected, expected_state = run(*(x.float() for x in inputs))
    assert h.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    assert torch.equal(h, expected.bfloat16())
    assert torch.equal(state.c, expected_state.c)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_autocast_changes_nothing(run, draw) -> None:
    leaves = [x.requires_grad_() for x in draw(33, dtype=torch.float32)]
    expected = torch.autograd.grad(run(*leaves)[0].square().sum(), leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.autograd.grad(run(*leaves)[0].square().sum(), leaves)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("step", [ops.mlstm_step, ops.slstm_step], ids=["mlstm", "slstm"])
def test_autocast_does_not_change_a_step(step) -> None:
    if step is ops.mlstm_step:
        inputs = [x[:, 0] for x in mlstm_inputs(1, dtype=torch.float32)]
        _, state = ops.mlstm(*mlstm_inputs(9, dtype=torch.float32))
    else:
        x, *weights = slstm_inputs(9, dtype=torch.float32)
        inputs, (_, state) = [x[:, 0], *weights], ops.slstm(x, *weights)
    expected, _ = step(*inputs, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = step(*inputs, state)
    assert torch.equal(got, expected)


def test_a_double_state_is_not_rounded() -> None:
    inputs = mlstm_inputs(5, dtype=torch.float32)
    start = mlstm_initial_state(2, 2, 8, 8, dtype=torch.float64, device="cpu")
    h, state = ops.mlstm(*inputs, state=start)
    assert h.dtype == torch.float32
    assert state.c.dtype == torch.float64


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_float32_stays_close_over_a_long_stream(run, draw) -> None:
    inputs = draw(5000, dtype=torch.float64, B=1)
    truth, _ = run(*inputs)
    h, _ = run(*(x.float() for x in inputs))
    assert (h - truth).abs().max() < 2e-5 * truth.abs().max()


@pytest.mark.parametrize("gate", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_extreme_gates_stay_finite(run, draw, gate: float) -> None:
    inputs = draw(40, dtype=torch.float32)
    if run is ops.mlstm:
        inputs[3][:, 5::7] = gate
        inputs[4][:, 3::5] = gate
        inputs[0][:, 20:] = 0  # numerator and denominator are both zero: read zero, not 0 / 0
    else:
        inputs[0][:, 5::7, :2] = gate
    leaves = [x.requires_grad_() for x in inputs]
    h, state = run(*leaves)
    # At a query of zeros the true gradient is exp(m), which no float32 holds: none is asked for.
    grads = torch.autograd.grad(h[:, :20].sum(), leaves)
    assert all(part.isfinite().all() for part in (h, *state, *grads))


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_layout_does_not_matter_and_inputs_are_left_alone(run, draw) -> None:
    inputs = draw(37, dtype=torch.float64)
    strided = [torch.stack((x, x), -1)[..., 0].requires_grad_() for x in inputs]
    plain = [x.clone().requires_grad_() for x in inputs]
    h, _ = run(*plain)
    other, _ = run(*strided)
    assert torch.equal(h, other)
    # The gradient of a plain sum is one expanded number.
    got = torch.autograd.grad(other.sum(), strided)
    expected = torch.autograd.grad((h * torch.ones_like(h)).sum(), plain)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    for before, after in zip(inputs, plain, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_backward_may_run_twice(run, draw) -> None:
    leaves = [x.requires_grad_() for x in draw(37, dtype=torch.float64)]
    loss = run(*leaves)[0].square().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("B", "H"), [(1, 1), (1, 3), (3, 1)])
def test_one_series_or_one_head(B: int, H: int) -> None:
    for run, draw, kind in (
        (ops.mlstm, mlstm_inputs, MLSTMState),
        (ops.slstm, slstm_inputs, SLSTMState),
    ):
        inputs = draw(19, dtype=torch.float64, B=3, H=3)
        whole, _ = run(*inputs)
        if run is ops.mlstm:
            part = [x[:B, :, :H] for x in inputs]
        else:
            part = [inputs[0][:B, :, :, :H], inputs[1][:H], inputs[2][:, :H]]
        leaves = [x.clone().requires_grad_() for x in part]
        h, state = run(*leaves)
        assert isinstance(state, kind)
        torch.testing.assert_close(h, whole[:B, :, :H], atol=1e-12, rtol=1e-12)
        upstream = torch.ones_like(h)
        torch.autograd.grad(h, leaves, upstream)
        assert (upstream == 1).all()
