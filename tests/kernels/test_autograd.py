"""Derivatives by other ways than `backward`: `torch.func`, forward mode, second derivatives."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from xlstm_ts.kernels import ops
from xlstm_ts.kernels.states import MLSTMState, SLSTMState

B, T, H, D = 2, 3, 1, 4


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def mlstm_loss(backend: str):
    """Return a loss of the inputs, with a state and a mask, and inputs for it."""
    torch.manual_seed(0)
    state = MLSTMState(draw(B, H, D, D), draw(B, H, D), draw(B, H))
    mask = torch.rand(B, T) > 0.3

    def loss(*inputs: torch.Tensor) -> torch.Tensor:
        h, (c, n, _) = ops.mlstm(*inputs, state=state, mask=mask, backend=backend)
        return h.square().sum() + c.sum() + n.sum()

    vectors = [draw(B, T, H, D) for _ in range(3)]
    return loss, [*vectors, draw(B, T, H), draw(B, T, H)]


def slstm_loss(backend: str):
    """Return a loss of the inputs, with a state and a mask, and inputs for it."""
    torch.manual_seed(0)
    h, c, m = (draw(B, H, D) for _ in range(3))
    state = SLSTMState(h, c, draw(B, H, D).abs() + 1, m)
    mask = torch.rand(B, T) > 0.3

    def loss(*inputs: torch.Tensor) -> torch.Tensor:
        h, (_, c, n, _) = ops.slstm(*inputs, state=state, mask=mask, backend=backend)
        return h.square().sum() + c.sum() + n.sum()

    return loss, [draw(B, T, 4, H, D), draw(H, 4, D, D) / D, draw(4, H, D)]


LOSSES = [pytest.param(mlstm_loss, id="mlstm"), pytest.param(slstm_loss, id="slstm")]
BACKENDS = ["torch", "triton"]
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="runs kernels on the CPU"),
    # Torch's own, where forward mode begins.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]


def gradient_of_first(loss, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    leaf = first.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, *others), leaf)[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", LOSSES)
def test_gradients_by_function(case, backend: str) -> None:
    loss, inputs = case(backend)
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    every = tuple(range(len(inputs)))
    for transform in (grad, jacrev):
        for got, one in zip(transform(loss, every)(*inputs), expected, strict=True):
            assert torch.equal(got, one)


@pytest.mark.parametrize(
    ("case", "backend"),
    [(mlstm_loss, "torch"), (slstm_loss, "torch"), (slstm_loss, "triton")],
    ids=["mlstm-torch", "slstm-torch", "slstm-triton"],
)
def test_a_batch_of_calls_is_many_calls(case, backend: str) -> None:
    loss, (first, *others) = case(backend)
    batch = torch.stack([first, 2 * first])
    one = lambda x: loss(x, *others)  # noqa: E731 - a function of the first input
    torch.testing.assert_close(vmap(one)(batch), torch.stack([one(x) for x in batch]))
    expected = torch.stack([gradient_of_first(loss, x, *others) for x in batch])
    torch.testing.assert_close(vmap(grad(one))(batch), expected)
    # Here the tensors of the call say nothing of a gradient.
    torch.testing.assert_close(grad(lambda x: vmap(one)(x).sum())(batch), expected)
    leaf = batch.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(vmap(one)(leaf).sum(), leaf)[0], expected)


@pytest.mark.parametrize("case", LOSSES)
def test_each_weight_of_a_batch_is_its_own(case) -> None:
    loss, (first, *others) = case("torch")
    weights = [torch.stack([x, x / 2]) for x in others]
    got = vmap(loss, (None, *(0 for _ in weights)))(first, *weights)
    expected = [loss(first, *(x[j] for x in weights)) for j in range(2)]
    torch.testing.assert_close(got, torch.stack(expected))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", LOSSES)
def test_forward_mode_is_refused(case, backend: str) -> None:
    loss, inputs = case(backend)
    point = tuple(inputs)
    with pytest.raises(NotImplementedError, match=r"reverse mode \(torch\.func\.grad"):
        jvp(loss, point, point)
    with torch.no_grad(), pytest.raises(NotImplementedError, match="reverse mode"):
        jvp(loss, point, point)
    for transform in (jacfwd, hessian):
        with pytest.raises(NotImplementedError, match="reverse mode"):
            transform(loss)(*inputs)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="reverse mode"):
        loss(*(forward_ad.make_dual(x, x) for x in inputs))


@pytest.mark.parametrize("case", LOSSES)
def test_forward_mode_through_the_gradient_is_refused(case) -> None:
    loss, inputs = case("torch")
    leaves = [x.requires_grad_() for x in inputs]
    out = loss(*leaves)
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out))
        with pytest.raises(NotImplementedError, match="reverse mode"):
            torch.autograd.grad(out, leaves, weight)


@pytest.mark.parametrize("case", LOSSES)
def test_forward_mode_is_refused_in_a_graph(case) -> None:
    torch._dynamo.reset()
    loss, inputs = case("torch")
    tangent = torch.compile(lambda *x: jvp(loss, x, x)[1], backend="eager")
    with pytest.raises(NotImplementedError, match="reverse mode"):
        tangent(*inputs)
    compiled = torch.compile(loss, backend="eager")
    compiled(*inputs)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="reverse mode"):
        compiled(*(forward_ad.make_dual(x, x) for x in inputs))


@pytest.mark.parametrize("case", LOSSES)
def test_a_second_derivative_is_refused(case) -> None:
    loss, inputs = case("torch")
    leaves = [x.requires_grad_() for x in inputs]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        torch.autograd.grad(first[0].sum(), leaves)
    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        grad(lambda x: grad(loss)(x, *inputs[1:]).square().sum())(inputs[0].detach())


def test_steps_have_every_derivative() -> None:
    torch.manual_seed(0)
    x, r, b = (part.double() for part in (draw(1, 3, 4, 1, 2), draw(1, 4, 2, 2), draw(4, 1, 2)))
    q, k, v, i, f = (part.double() for part in (*draw(3, 1, 3, 1, 2), *draw(2, 1, 3, 1)))

    def slstm(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        state = None
        for t in range(3):
            h, state = ops.slstm_step(x[:, t], r, b, state)
        return h

    def mlstm(q: torch.Tensor, k: torch.Tensor, i: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        state = None
        for t in range(3):
            h, state = ops.mlstm_step(q[:, t], k[:, t], v[:, t], i[:, t], f[:, t], state)
        return h

    for run, inputs in ((slstm, [x, r]), (mlstm, [q, k, i, f])):
        leaves = [part.requires_grad_() for part in inputs]
        assert torch.autograd.gradcheck(run, leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(run, leaves)
