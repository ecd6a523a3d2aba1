"""Absent steps: whatever stands in them, they change nothing and nothing flows back to them."""

import pytest
import torch

from xlstm_ts.kernels import ops, reference
from xlstm_ts.kernels.states import MLSTMState, SLSTMState

B, T, H, D = 2, 21, 2, 4
GARBAGE = [torch.nan, torch.inf, -torch.inf, 1e300]

MLSTM_RUNS = {
    "reference": reference.mlstm,
    "parallel": lambda *args, **kw: ops.mlstm(*args, form="parallel", **kw),
    "chunkwise": lambda *args, **kw: ops.mlstm(*args, form="chunkwise", chunk_size=4, **kw),
    "steps": lambda *args, **kw: by_steps(ops.mlstm_step, empty_mlstm(), *args, **kw),
}
SLSTM_RUNS = {
    "reference": reference.slstm,
    "scan": ops.slstm,
    "steps": lambda x, *weights, **kw: by_steps(ops.slstm_step, empty_slstm(), x, w=weights, **kw),
}


def empty_mlstm() -> MLSTMState:
    return MLSTMState(zeros(B, H, D, D), zeros(B, H, D), zeros(B, H) - 1e30)


def empty_slstm() -> SLSTMState:
    return SLSTMState(*(zeros(B, H, D) for _ in range(3)), zeros(B, H, D) - 1e30)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_steps(step, state, *inputs, mask, w=()):
    outputs = []
    for t in range(T):
        h, state = step(*(x[:, t] for x in inputs), *w, state, mask=mask[:, t])
        outputs.append(h)
    return torch.stack(outputs, 1), state


def mlstm_inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [*(draw(B, T, H, D) for _ in range(3)), draw(B, T, H), draw(B, T, H)]


def slstm_inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [draw(B, T, 4, H, D), draw(H, 4, D, D) / D, draw(4, H, D)]


def present() -> torch.Tensor:
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[0, :3] = False  # an empty memory is read
    mask[1, -5:] = False
    return mask


def spoil(x: torch.Tensor, absent: torch.Tensor, garbage: float) -> torch.Tensor:
    return x.masked_fill(absent.reshape(*absent.shape, *(1,) * (x.dim() - 2)), garbage)


def gradients(run, inputs: list[torch.Tensor], mask: torch.Tensor):
    leaves = [x.clone().requires_grad_() for x in inputs]
    h, state = run(*leaves, mask=mask)
    torch.manual_seed(2)
    loss = sum((draw(*part.shape) * part).sum() for part in (h, *state[:-1]))
    return h, state, torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("run", MLSTM_RUNS.values(), ids=MLSTM_RUNS)
def test_mlstm_never_uses_what_is_absent(run, garbage: float) -> None:
    mask = present()
    clean = [spoil(x, ~mask, 0.0) for x in mlstm_inputs()]
    spoilt = [clean[0] if garbage == 1e300 else spoil(clean[0], ~mask, garbage)]
    spoilt += [spoil(x, ~mask, garbage) for x in clean[1:]]
    h, state, grads = gradients(run, clean, mask)
    other_h, other_state, other_grads = gradients(run, spoilt, mask)
    for got, expected in zip((other_h, *other_state), (h, *state), strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(other_grads[1:], grads[1:], strict=True):
        assert torch.equal(got, expected)
        assert got[~mask].abs().max() == 0
    torch.testing.assert_close(other_grads[0][mask], grads[0][mask], atol=0, rtol=0)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("run", SLSTM_RUNS.values(), ids=SLSTM_RUNS)
def test_slstm_never_uses_what_is_absent(run, garbage: float) -> None:
    mask = present()
    x, *weights = slstm_inputs()
    h, state, grads = gradients(run, [x, *weights], mask)
    other = gradients(run, [spoil(x, ~mask, garbage), *weights], mask)
    for got, expected in zip((other[0], *other[1]), (h, *state), strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(other[2], grads, strict=True):
        assert torch.equal(got, expected)
    assert grads[0][~mask].abs().max() == 0


@pytest.mark.parametrize("run", MLSTM_RUNS.values(), ids=MLSTM_RUNS)
def test_absent_query_reads_the_unchanged_memory(run) -> None:
    inputs, mask = mlstm_inputs(), torch.ones(B, T, dtype=torch.bool)
    mask[:, 9] = False
    h, _ = run(*inputs, mask=mask)
    _, before = ops.mlstm(*(x[:, :9] for x in inputs))
    scaled = inputs[0][:, 9] * D**-0.5
    num = torch.einsum("bhk,bhkv->bhv", scaled, before.c)
    den = (scaled * before.n).sum(-1).abs().maximum(torch.exp(-before.m))
    torch.testing.assert_close(h[:, 9], num / den[..., None], atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("run", SLSTM_RUNS.values(), ids=SLSTM_RUNS)
def test_absent_step_repeats_the_last_output(run) -> None:
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[:, 9:11] = False
    h, _ = run(*slstm_inputs(), mask=mask)
    assert torch.equal(h[:, 10], h[:, 8])


@pytest.mark.parametrize("run", SLSTM_RUNS.values(), ids=SLSTM_RUNS)
def test_slstm_steps_are_removed(run) -> None:
    x, *weights = slstm_inputs()
    mask = present()[:1].expand(B, T)
    h, state = run(x, *weights, mask=mask)
    short, short_state = ops.slstm(x[:, mask[0]], *weights)
    for got, expected in zip((h[:, mask[0]], *state), (short, *short_state), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


def test_nothing_at_all_leaves_the_empty_memory_and_no_gradient() -> None:
    nothing = torch.zeros(B, T, dtype=torch.bool)
    cases = [(run, mlstm_inputs()) for run in MLSTM_RUNS.values()]
    cases += [(run, slstm_inputs()) for run in SLSTM_RUNS.values()]
    for run, inputs in cases:
        h, state, grads = gradients(run, inputs, nothing)
        assert all(part.abs().max() == 0 for part in (h, *state[:-1], *grads))
        assert (state.m == -1e30).all()
