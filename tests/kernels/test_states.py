"""States: what none means, what a scale is, and gradients through the last and the first one."""

import pytest
import torch

from xlstm_ts.kernels import ops
from xlstm_ts.kernels.states import (
    M_START,
    MLSTMState,
    SLSTMState,
    mlstm_initial_state,
    slstm_initial_state,
)

DOUBLE = torch.float64


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def mlstm_inputs(T: int, *, B: int = 2, H: int = 2, K: int = 3, V: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(T)
    shapes = ((B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H), (B, T, H))
    return [draw(*shape).requires_grad_() for shape in shapes]


def slstm_inputs(T: int, *, B: int = 2, H: int = 2, D: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(T)
    shapes = ((B, T, 4, H, D), (H, 4, D, D), (4, H, D))
    return [draw(*shape).requires_grad_() for shape in shapes]


def mlstm_start(*, B: int = 2, H: int = 2, K: int = 3, V: int = 2) -> list[torch.Tensor]:
    return [draw(B, H, K, V), draw(B, H, K), draw(B, H)]


def slstm_start(*, B: int = 2, H: int = 2, D: int = 3) -> list[torch.Tensor]:
    return [draw(B, H, D), draw(B, H, D), draw(B, H, D).abs() + 1, draw(B, H, D)]


def test_no_state_is_the_empty_one() -> None:
    empty = mlstm_initial_state(2, 2, 3, 2, dtype=DOUBLE, device="cpu")
    assert [tuple(part.shape) for part in empty] == [(2, 2, 3, 2), (2, 2, 3), (2, 2)]
    pairs = [(ops.mlstm(*mlstm_inputs(9), state=empty), ops.mlstm(*mlstm_inputs(9)))]
    empty = slstm_initial_state(2, 2, 3, dtype=DOUBLE, device="cpu")
    assert [tuple(part.shape) for part in empty] == [(2, 2, 3)] * 4
    assert (empty.m == M_START).all()
    pairs.append((ops.slstm(*slstm_inputs(9), state=empty), ops.slstm(*slstm_inputs(9))))
    for (h, state), (expected_h, expected_state) in pairs:
        for got, expected in zip((h, *state), (expected_h, *expected_state), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize(("form", "size"), [("parallel", None), ("chunkwise", 2)])
@pytest.mark.parametrize("T", [1, 5])
def test_gradcheck_through_the_last_mlstm_state(T: int, form: str, size: int | None) -> None:
    # Only exp(m) c and exp(m) n are functions of the inputs: m itself is a free scale.
    def run(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = MLSTMState(*leaves[5:])
        h, (c, n, m) = ops.mlstm(*leaves[:5], state=state, form=form, chunk_size=size)
        scale = m.exp()
        return h, c * scale[..., None, None], n * scale[..., None]

    start = [x.requires_grad_() for x in mlstm_start(B=1)]
    assert torch.autograd.gradcheck(run, [*mlstm_inputs(T, B=1), *start])


@pytest.mark.parametrize("T", [1, 6])
def test_gradcheck_through_the_last_slstm_state(T: int) -> None:
    def run(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs, (h, c, n, m) = ops.slstm(*leaves[:3], state=SLSTMState(*leaves[3:]))
        return outputs, h, c * m.exp(), n * m.exp()

    start = [x.requires_grad_() for x in slstm_start(B=1)]
    assert torch.autograd.gradcheck(run, [*slstm_inputs(T, B=1), *start])


@pytest.mark.parametrize("T", [1, 7])
def test_gradcheck_of_a_step(T: int) -> None:
    inputs, start = mlstm_inputs(T, B=1), [x.requires_grad_() for x in mlstm_start(B=1)]
    present = torch.tensor([T == 1])

    def run(*leaves: torch.Tensor) -> torch.Tensor:
        return ops.mlstm_step(*leaves[:5], MLSTMState(*leaves[5:]), mask=present)[0]

    first = [x[:, 0].detach().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(run, [*first, *start])


def test_gradients_of_steps_are_those_of_the_whole() -> None:
    cases = (
        (ops.mlstm, ops.mlstm_step, mlstm_inputs(7), MLSTMState, mlstm_start()),
        (ops.slstm, ops.slstm_step, slstm_inputs(7), SLSTMState, slstm_start()),
    )
    for run, step, inputs, kind, start in cases:
        timed = [x for x in inputs if x.shape[:2] == (2, 7)]
        fixed = inputs[len(timed) :]
        leaves = [*inputs, *(part.requires_grad_() for part in start)]
        whole, _ = run(*inputs, state=kind(*start))
        state, outputs = kind(*start), []
        for t in range(7):
            h, state = step(*(x[:, t] for x in timed), *fixed, state)
            outputs.append(h)
        weights = draw(*whole.shape)
        expected = torch.autograd.grad((whole * weights).sum(), leaves)
        got = torch.autograd.grad((torch.stack(outputs, 1) * weights).sum(), leaves)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def test_gradients_flow_through_a_cut() -> None:
    cases = (
        (ops.mlstm, mlstm_inputs(40), MLSTMState, mlstm_start()),
        (ops.slstm, slstm_inputs(40), SLSTMState, slstm_start()),
    )
    for run, inputs, kind, start in cases:
        timed = [x for x in inputs if x.shape[:2] == (2, 40)]
        fixed = inputs[len(timed) :]
        leaves = [*inputs, *(part.requires_grad_() for part in start)]
        whole, _ = run(*inputs, state=kind(*start))
        head, state = run(*(x[:, :17] for x in timed), *fixed, state=kind(*start))
        tail, _ = run(*(x[:, 17:] for x in timed), *fixed, state=state)
        weights = draw(*whole.shape)
        expected = torch.autograd.grad((whole * weights).sum(), leaves)
        got = torch.autograd.grad((torch.cat((head, tail), 1) * weights).sum(), leaves)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_scale_of_an_slstm_state_is_free() -> None:
    inputs, (h, c, n, m) = slstm_inputs(9), slstm_start()
    expected, _ = ops.slstm(*inputs, state=SLSTMState(h, c, n, m))
    factor = torch.tensor(3.0, dtype=DOUBLE).exp()
    got, _ = ops.slstm(*inputs, state=SLSTMState(h, c * factor, n * factor, m - 3))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("name", "place"), [("c", 0), ("n", 1), ("m", 2)])
def test_a_wrong_state_is_named(name: str, place: int) -> None:
    start = mlstm_start()
    start[place] = start[place][:1]
    with pytest.raises(ValueError, match=rf"`state\.{name}` must have shape"):
        ops.mlstm(*mlstm_inputs(4), state=MLSTMState(*start))


@pytest.mark.parametrize(
    ("run", "step", "inputs"),
    [(ops.mlstm, ops.mlstm_step, mlstm_inputs), (ops.slstm, ops.slstm_step, slstm_inputs)],
    ids=["mlstm", "slstm"],
)
def test_a_step_without_state_is_the_first(run, step, inputs) -> None:
    parts = inputs(1)
    first = [x[:, 0] if x.shape[:2] == (2, 1) else x for x in parts]
    h, state = step(*first)
    outputs, final = run(*parts)
    for got, expected in zip((h, *state), (outputs[:, 0], *final), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("run", "inputs"),
    [(ops.mlstm, mlstm_inputs), (ops.slstm, slstm_inputs)],
    ids=["mlstm", "slstm"],
)
def test_a_detached_state_cuts_the_gradient(run, inputs) -> None:
    _, state = run(*inputs(5))
    constant = state.detach()
    assert type(constant) is type(state)
    assert state.c.requires_grad
    assert not any(part.requires_grad for part in constant)
    for got, expected in zip(constant, state, strict=True):
        assert got.data_ptr() == expected.data_ptr()
