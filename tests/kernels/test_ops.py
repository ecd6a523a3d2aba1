"""The operators against the float64 reference, over odd shapes, states and masks."""

import pytest
import torch

from xlstm_ts.kernels import ops, reference
from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling, Tiling


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def mlstm_case(T: int, K: int, V: int, *, state: bool, mask: bool, B: int = 2, H: int = 2):
    torch.manual_seed(T + K)
    inputs = [
        draw(B, T, H, K),
        draw(B, T, H, K),
        draw(B, T, H, V),
        draw(B, T, H),
        draw(B, T, H) + 2,
    ]
    start = [draw(B, H, K, V), draw(B, H, K), draw(B, H)] if state else []
    present = torch.rand(B, T) > 0.3 if mask else None
    return inputs, start, present


def slstm_case(T: int, D: int, *, state: bool, mask: bool, B: int = 2, H: int = 2):
    torch.manual_seed(T + D)
    inputs = [draw(B, T, 4, H, D), draw(H, 4, D, D) / D, draw(4, H, D)]
    start = [draw(B, H, D), draw(B, H, D), draw(B, H, D).abs() + 1, draw(B, H, D)] if state else []
    present = torch.rand(B, T) > 0.3 if mask else None
    return inputs, start, present


def outputs_and_gradients(run, kind, inputs, start, present, **options):
    """Return outputs, final state and all gradients of a loss that weighs all of them."""
    leaves = [x.clone().requires_grad_() for x in (*inputs, *start)]
    state = kind(*leaves[len(inputs) :]) if start else None
    h, final = run(*leaves[: len(inputs)], state=state, mask=present, **options)
    parts = [h, *(part for name, part in final._asdict().items() if name != "m")]
    torch.manual_seed(0)
    # The scale m of the final state is free, so the loss may only see what does not depend on it.
    true = [parts[0], *(part * scaled(part, final.m) for part in parts[1:])]
    if kind is SLSTMState:
        true = [parts[0], parts[1], parts[2] / parts[3].clamp_min(1e-30)]
    loss = sum((draw(*part.shape).to(part.device) * part).sum() for part in true)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [*true, *(g for g in gradients if g is not None)]


def scaled(part: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m.exp().reshape(m.shape + (1,) * (part.dim() - m.dim()))


GRID = [
    (1, 8, 8),
    (15, 16, 16),
    (16, 24, 8),
    (17, 32, 32),
    (63, 8, 16),
    (130, 16, 16),
    (500, 32, 32),
]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(("T", "K", "V"), GRID)
@pytest.mark.parametrize("form", ["parallel", "chunkwise"])
def test_mlstm_equals_reference(form, T, K, V, state, mask) -> None:
    case = mlstm_case(T, K, V, state=state, mask=mask)
    truth = outputs_and_gradients(reference.mlstm, MLSTMState, *case)
    for got, expected in zip(
        outputs_and_gradients(ops.mlstm, MLSTMState, *case, form=form), truth, strict=True
    ):
        size = max(1.0, expected.detach().abs().max().item())
        torch.testing.assert_close(got, expected, atol=1e-10 * size, rtol=1e-9)


@pytest.mark.parametrize(
    ("backend", "dtype", "bound"),
    [
        ("torch", torch.float64, 1e-10),
        ("torch", torch.float32, 2e-5),
        ("triton", torch.float32, 2e-5),
    ],
)
@pytest.mark.parametrize("f", [-torch.inf, -1e30])
@pytest.mark.parametrize("form", ["parallel", "chunkwise"])
def test_a_closed_forget_gate_resets_the_memory(form, f: float, backend, dtype, bound) -> None:
    inputs, start, _ = mlstm_case(50, 8, 8, state=True, mask=False)
    for steps in ([0], [7, 8], range(33, 50)):
        inputs[4][:, list(steps)] = f
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    case = ([x.to(device, dtype) for x in inputs], [x.to(device, dtype) for x in start], None)
    truth = outputs_and_gradients(
        reference.mlstm, MLSTMState, *([x.double() for x in part] for part in case[:2]), None
    )
    got = outputs_and_gradients(ops.mlstm, MLSTMState, *case, form=form, backend=backend)
    for one, expected in zip(got, truth, strict=True):
        size = max(1.0, expected.detach().abs().max().item())
        torch.testing.assert_close(one.double(), expected, atol=bound * size, rtol=0)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(("T", "D"), [(1, 8), (15, 16), (17, 24), (63, 32), (130, 8)])
def test_slstm_equals_reference(T, D, state, mask) -> None:
    case = slstm_case(T, D, state=state, mask=mask)
    truth = outputs_and_gradients(reference.slstm, SLSTMState, *case)
    for got, expected in zip(
        outputs_and_gradients(ops.slstm, SLSTMState, *case), truth, strict=True
    ):
        size = max(1.0, expected.detach().abs().max().item())
        torch.testing.assert_close(got, expected, atol=1e-10 * size, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_chunk_size_changes_nothing(size: int) -> None:
    inputs, _, present = mlstm_case(45, 8, 8, state=False, mask=True)
    truth, _ = ops.mlstm(*inputs, mask=present, form="parallel")
    h, _ = ops.mlstm(*inputs, mask=present, form="chunkwise", chunk_size=size)
    torch.testing.assert_close(h, truth, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("cut", [1, 16, 29])
def test_cutting_and_stepping_change_nothing(cut: int) -> None:
    for run, step, (inputs, _, present), kind in (
        (ops.mlstm, ops.mlstm_step, mlstm_case(30, 8, 16, state=False, mask=True), MLSTMState),
        (ops.slstm, ops.slstm_step, slstm_case(30, 8, state=False, mask=True), SLSTMState),
    ):
        timed = [x for x in inputs if x.shape[:2] == (2, 30)]
        fixed = inputs[len(timed) :]
        h, final = run(*inputs, mask=present)
        head, state = run(*(x[:, :cut] for x in timed), *fixed, mask=present[:, :cut])
        tail, state = run(*(x[:, cut:] for x in timed), *fixed, state=state, mask=present[:, cut:])
        torch.testing.assert_close(torch.cat((head, tail), 1), h, atol=1e-11, rtol=1e-11)
        for t in range(cut, 30):
            if t == cut:
                _, state = run(*(x[:, :cut] for x in timed), *fixed, mask=present[:, :cut])
            out, state = step(*(x[:, t] for x in timed), *fixed, state, mask=present[:, t])
            torch.testing.assert_close(out, h[:, t], atol=1e-11, rtol=1e-11)
        assert isinstance(state, kind)
        torch.testing.assert_close(state.c, final.c, atol=1e-11, rtol=1e-11)


def test_masked_steps_are_removed_whatever_they_hold() -> None:
    inputs, _, present = mlstm_case(20, 8, 8, state=False, mask=True, B=1)
    kept = present[0]
    short, short_state = ops.mlstm(*(x[:, kept] for x in inputs))
    spoilt = [x.clone() for x in inputs]
    for x in spoilt[1:]:
        x[:, ~kept] = torch.nan
    h, state = ops.mlstm(*spoilt, mask=present)
    torch.testing.assert_close(h[:, kept], short, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(state.c, short_state.c, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("form", ["parallel", "chunkwise"])
def test_empty_memory_stays_empty_while_nothing_comes(form: str) -> None:
    inputs, _, _ = mlstm_case(40, 8, 8, state=False, mask=False)
    h, state = ops.mlstm(*inputs, mask=torch.zeros(2, 40, dtype=torch.bool), form=form)
    assert h.abs().max() == 0
    assert state.c.abs().max() == 0
    assert (state.m <= -1e29).all()


def test_scale_of_the_state_is_free() -> None:
    inputs, (c, n, m), _ = mlstm_case(20, 8, 8, state=True, mask=False)
    h, _ = ops.mlstm(*inputs, state=MLSTMState(c, n, m))
    factor = torch.tensor(3.0, dtype=torch.float64).exp()
    other, _ = ops.mlstm(*inputs, state=MLSTMState(c * factor, n * factor, m - 3))
    torch.testing.assert_close(h, other, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("form", "size"), [("parallel", None), ("chunkwise", 2)])
def test_gradcheck_mlstm(form: str, size: int | None) -> None:
    inputs, start, present = mlstm_case(5, 2, 3, state=True, mask=True, B=1, H=1)

    def run(*leaves: torch.Tensor) -> torch.Tensor:
        state = MLSTMState(*leaves[5:])
        return ops.mlstm(*leaves[:5], state=state, mask=present, form=form, chunk_size=size)[0]

    # c alone moves with m, which is detached: only the outputs are checked numerically.
    leaves = [x.requires_grad_() for x in (*inputs, *start)]
    assert torch.autograd.gradcheck(run, leaves)


def test_gradcheck_slstm() -> None:
    inputs, start, present = slstm_case(5, 2, state=True, mask=True, B=1, H=1)
    leaves = [x.requires_grad_() for x in (*inputs, *start)]
    assert torch.autograd.gradcheck(
        lambda *args: ops.slstm(*args[:3], state=SLSTMState(*args[3:]), mask=present)[0], leaves
    )


def test_errors_name_the_argument() -> None:
    inputs, _, _ = mlstm_case(4, 8, 8, state=False, mask=False)
    q, k, v, i, f = inputs
    with pytest.raises(ValueError, match=r"`?k`?"):
        ops.mlstm(q, k[:, :3], v, i, f)
    with pytest.raises(ValueError, match="mask"):
        ops.mlstm(q, k, v, i, f, mask=torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="form"):
        ops.mlstm(q, k, v, i, f, form="fast")
    with pytest.raises(ValueError, match="T"):
        ops.mlstm(*(x[:, :0] for x in inputs))


GOOD = Tiling(16, 16, 1, 1)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(
    "option",
    [
        {"precision": "bfloat16"},
        {"segments": 0},
        {"segments": -1},
        {"tiling": GOOD},
        {"tiling": (GOOD,)},
        {"tiling": (GOOD, tuple(GOOD))},
        {"tiling": (GOOD, GOOD._replace(chunk=24))},
        {"tiling": (GOOD._replace(chunk=8), GOOD)},
        {"tiling": (GOOD, GOOD._replace(value_block=0))},
        {"tiling": (GOOD, GOOD._replace(warps=3))},
    ],
    ids=str,
)
def test_options_of_the_mlstm_are_checked(option, backend: str) -> None:
    inputs, _, _ = mlstm_case(4, 8, 8, state=False, mask=False)
    with pytest.raises(ValueError, match=f"`{next(iter(option))}`"):
        ops.mlstm(*inputs, **option, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(
    "option",
    [
        {"precision": "fp16"},
        {"tiling": (16, 1, 1)},
        {"tiling": ScanTiling(24, 1, 1)},
        {"tiling": ScanTiling(16, 1, 0)},
    ],
    ids=str,
)
def test_options_of_the_slstm_are_checked(option, backend: str) -> None:
    inputs, _, _ = slstm_case(4, 8, state=False, mask=False)
    with pytest.raises(ValueError, match=f"`{next(iter(option))}`"):
        ops.slstm(*inputs, **option, backend=backend)
