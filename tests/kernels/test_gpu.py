"""The operators on a CUDA device, on which the other files of this folder run the kernels too."""

import pytest
import torch

from xlstm_ts.kernels import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def mlstm_inputs(B: int, T: int, *, H: int = 2, D: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(T)
    inputs = [torch.randn(B, T, H, D) for _ in range(3)]
    # With closed input gates the normaliser rests on its floor: no change of sign blows up errors.
    inputs += [torch.randn(B, T, H) - 5, torch.randn(B, T, H) + 4]
    return [x.cuda().double() for x in inputs]


def slstm_inputs(B: int, T: int, *, H: int = 2, D: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(T)
    inputs = [torch.randn(B, T, 4, H, D), torch.randn(H, 4, D, D) / D, torch.randn(4, H, D)]
    return [x.cuda().double() for x in inputs]


CELLS = [
    pytest.param(ops.mlstm, mlstm_inputs, id="mlstm"),
    pytest.param(ops.slstm, slstm_inputs, id="slstm"),
]


def outputs_and_gradients(run, inputs, **options) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    h, _ = run(*leaves, **options)
    torch.manual_seed(0)
    weights = torch.randn(h.shape).to(h)
    return [h, *torch.autograd.grad((h * weights).sum(), leaves)]


# Of the mLSTM, four operands are shortened on the way to an output: q and k, their scores and v.
# Each is then low by up to 2**-10 in TF32, which cuts digits off, and off by 2**-9 in bfloat16.
# What the sLSTM shortens is the recurrent part of a gate, here a tenth of it and less.
BOUNDS = [
    pytest.param(ops.mlstm, mlstm_inputs, "fp32", 2e-6, id="mlstm-fp32"),
    pytest.param(ops.mlstm, mlstm_inputs, "tf32", 4 * 2**-10, id="mlstm-tf32"),
    pytest.param(ops.mlstm, mlstm_inputs, "bf16", 4 * 2**-9, id="mlstm-bf16"),
    pytest.param(ops.slstm, slstm_inputs, "fp32", 2e-6, id="slstm-fp32"),
    pytest.param(ops.slstm, slstm_inputs, "tf32", 5e-4, id="slstm-tf32"),
    pytest.param(ops.slstm, slstm_inputs, "bf16", 1e-3, id="slstm-bf16"),
]


@pytest.mark.parametrize(("run", "inputs", "precision", "bound"), BOUNDS)
def test_precisions_by_norm(run, inputs, precision: str, bound: float) -> None:
    double = inputs(3, 256)
    truth = outputs_and_gradients(run, double)
    single = [x.float() for x in double]
    got = outputs_and_gradients(run, single, backend="triton", precision=precision)
    # What df of the mLSTM sums up cancels, so that more of it is rounding.
    bounds = [bound] * 5 + [5 * bound]
    for one, other, least in zip(got, truth, bounds[: len(got)], strict=True):
        assert (one - other).norm() <= least * other.norm()


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_a_hundred_thousand_steps(run, inputs) -> None:
    double = inputs(1, 100_000)
    truth = outputs_and_gradients(run, double)
    got = outputs_and_gradients(run, [x.float() for x in double], backend="triton")
    for one, other in zip(got, truth, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_twenty_shapes_compile_nothing_new(run, inputs) -> None:
    from triton import knobs

    compiled = []
    outputs_and_gradients(run, [x.float() for x in inputs(2, 33)], backend="triton")
    before, knobs.runtime.jit_post_compile_hook = (
        knobs.runtime.jit_post_compile_hook,
        lambda **found: compiled.append(found),
    )
    try:
        for j in range(20):
            shape = [x.float() for x in inputs(1 + j % 7, 16 + 37 * j)]
            outputs_and_gradients(run, shape, backend="triton")
    finally:
        knobs.runtime.jit_post_compile_hook = before
    assert compiled == []


def start(run, inputs, T: int) -> dict[str, object]:
    """Return a mask, and the state after a few other steps."""
    with torch.no_grad():
        _, state = run(*(x.float() for x in inputs(2, 20)), backend="triton")
    return {"state": state, "mask": torch.rand(2, T, device="cuda") > 0.3}


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_segments_with_mask_and_state_compile_nothing_new(run, inputs) -> None:
    from triton import knobs

    compiled = []
    before = knobs.runtime.jit_post_compile_hook
    try:
        for T in (1000, 3000, 2048, 2049, 4100):  # the first two warm up, one on each side of 2048
            single = [x.float() for x in inputs(2, T)]
            options = start(run, inputs, T)
            if T == 2048:
                knobs.runtime.jit_post_compile_hook = lambda **found: compiled.append(found)
            got = outputs_and_gradients(run, single, backend="triton", **options)
            assert all(x.isfinite().all() for x in got)
    finally:
        knobs.runtime.jit_post_compile_hook = before
    assert compiled == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_another_device_than_the_current_one(run, inputs) -> None:
    single = [x.float() for x in inputs(2, 70)]
    first, second = (
        outputs_and_gradients(run, [x.to(device) for x in single], backend="triton")
        for device in ("cuda:0", "cuda:1")
    )
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu())


def far_apart(x: torch.Tensor) -> torch.Tensor:
    """Return `x` with more elements from one series to the next than 32 bits count."""
    step = 2**31 + 16 * 5
    room = torch.empty(step * (len(x) - 1) + x[0].numel(), dtype=x.dtype, device=x.device)
    return room.as_strided(x.shape, (step, *x.stride()[1:])).copy_(x)


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_strides_beyond_32_bits(run, inputs) -> None:
    first, *others = (x.half() for x in inputs(2, 20))
    expected, got = (run(x, *others, backend="triton")[0] for x in (first, far_apart(first)))
    assert torch.equal(got, expected)


def square(run, **options):
    return lambda *leaves: run(*leaves, **options)[0].square().mean()


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_compiles_into_one_graph(run, inputs) -> None:
    torch._dynamo.reset()
    loss = square(run)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (33, 100):
        leaves = [x.float().requires_grad_() for x in inputs(2, length)]
        got, expected = (torch.autograd.grad(one(*leaves), leaves) for one in (compiled, loss))
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_autocast_changes_nothing(run, inputs) -> None:
    leaves = [x.float().requires_grad_() for x in inputs(2, 70)]
    expected = torch.autograd.grad(square(run)(*leaves), leaves)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        got = torch.autograd.grad(square(run)(*leaves), leaves)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("run", "inputs"), CELLS)
def test_exports_plain_torch(run, inputs) -> None:
    class Cell(torch.nn.Module):
        def forward(self, *parts):
            return run(*parts)[0]

    parts = tuple(x.float() for x in inputs(2, 21))
    with torch.no_grad():
        program = torch.export.export(Cell(), parts)
    assert "xlstm_ts" not in program.graph_module.code
    torch.testing.assert_close(program.module()(*parts), run(*parts, backend="torch")[0])
