"""One operator, two paths: the choice, its refusals, and what torch makes of the operator."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch.library import opcheck

from xlstm_ts.exceptions import BackendError
from xlstm_ts.kernels import backends, mlstm_op, ops, slstm_op, slstm_triton
from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import ScanTiling, Tiling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
B, T, H, D = 2, 21, 2, 8


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(DEVICE)


def draw_mask() -> torch.Tensor:
    return (torch.rand(B, T) > 0.3).to(DEVICE)


def mlstm_inputs(length: int = T) -> list[torch.Tensor]:
    torch.manual_seed(0)
    vectors = [draw(B, length, H, D) for _ in range(3)]
    return [*vectors, draw(B, length, H) - 2, draw(B, length, H) + 3]


def slstm_inputs(length: int = T) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [draw(B, length, 4, H, D), draw(H, 4, D, D) / D, draw(4, H, D)]


def mlstm_state() -> MLSTMState:
    return MLSTMState(draw(B, H, D, D), draw(B, H, D), draw(B, H))


def slstm_state() -> SLSTMState:
    h, c, m = (draw(B, H, D) for _ in range(3))
    return SLSTMState(h, c, draw(B, H, D).abs() + 1, m)


CELLS = [
    pytest.param(ops.mlstm, mlstm_inputs, mlstm_state, id="mlstm"),
    pytest.param(ops.slstm, slstm_inputs, slstm_state, id="slstm"),
]


def everything(run, inputs, state, mask, **options) -> list[torch.Tensor]:
    """Return outputs, final memory without its scale, and all gradients of both."""
    leaves = [x.clone().requires_grad_() for x in (*inputs, *(state or ()))]
    start = type(state)(*leaves[len(inputs) :]) if state else None
    h, final = run(*leaves[: len(inputs)], state=start, mask=mask, **options)
    if isinstance(final, MLSTMState):
        scale = final.m.exp()
        parts = [final.c * scale[..., None, None], final.n * scale[..., None]]
    else:
        parts = [final.h, final.c / final.n]
    torch.manual_seed(1)
    loss = sum((draw(*part.shape) * part).sum() for part in (h, *parts))
    return [h, *parts, *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
def test_both_paths_agree(run, inputs, state, started: bool, masked: bool) -> None:
    start = state() if started else None
    mask = draw_mask() if masked else None
    torch_path, triton_path = (
        everything(run, inputs(), start, mask, backend=backend) for backend in ("torch", "triton")
    )
    for one, other in zip(torch_path, triton_path, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * one.abs().max().item())


def test_tilings_and_segments_change_nothing() -> None:
    expected = everything(ops.mlstm, mlstm_inputs(70), None, None, backend="triton")
    tiling = Tiling(32, 16, 1, 1)
    got = everything(
        ops.mlstm, mlstm_inputs(70), None, None, backend="triton", tiling=(tiling,) * 2, segments=2
    )
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * one.abs().max().item())
    torch.testing.assert_close(
        ops.slstm(*slstm_inputs(), backend="triton", tiling=ScanTiling(32, 1, 1))[0],
        ops.slstm(*slstm_inputs(), backend="triton")[0],
    )


@pytest.mark.parametrize("triton", [False, True], ids=["torch", "triton"])
@pytest.mark.parametrize("started", [False, True])
def test_operators_pass_torch_s_own_check(started: bool, triton: bool) -> None:
    def leaves(parts):
        return [part.requires_grad_() for part in parts]

    mask = draw_mask() if triton else None
    start = leaves(mlstm_state()) if started else [None] * 3
    plan = mlstm_op.Plan(0 if triton else 16)
    opcheck(mlstm_op._mlstm, (*leaves(mlstm_inputs()), *start, mask, *plan))
    start = leaves(slstm_state()) if started else [None] * 4
    opcheck(slstm_op._slstm, (*leaves(slstm_inputs()), *start, mask, *slstm_op.Plan(triton)))
    with torch.no_grad():
        inference = slstm_op.Plan(triton, save=False)
        opcheck(slstm_op._slstm, (*slstm_inputs(), *[None] * 4, mask, *inference))


@pytest.mark.parametrize("wanted", [False, True])
def test_nothing_is_saved_for_a_gradient_that_nobody_wants(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    forward = slstm_triton.forward

    def spy(*inputs, **options):
        saved.append(options["save"])
        return forward(*inputs, **options)

    monkeypatch.setattr(slstm_triton, "forward", spy)
    x, r, b = slstm_inputs()
    with torch.no_grad():
        plain = ops.slstm(x.requires_grad_(), r, b, backend="triton")[0]
    again = ops.slstm(x.detach().requires_grad_(wanted), r, b, backend="triton")[0]
    assert saved == [False, wanted]
    assert torch.equal(plain, again)


@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_compiled_graphs_take_any_length(run, inputs, state, backend: str) -> None:
    torch._dynamo.reset()
    graphs = []

    def count(graph, examples):
        graphs.append(graph)
        return graph

    def loss(*leaves):
        return run(*leaves, backend=backend)[0].square().sum()

    compiled = torch.compile(loss, backend=count, fullgraph=True, dynamic=True)
    for length in (13, 14, 40):
        leaves = [x.requires_grad_() for x in inputs(length)]
        got = torch.autograd.grad(compiled(*leaves), leaves)
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="makes up a device, of no real type")
@pytest.mark.parametrize("room", [99 << 10, 1], ids=["fits", "falls back"])
def test_the_question_for_room_does_not_break_a_graph(monkeypatch, room: int) -> None:
    torch._dynamo.reset()
    found = object.__new__(torch.cuda._CudaDeviceProperties)
    found.shared_memory_per_block_optin = room
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_get_device_properties", lambda device: found, raising=False)
    monkeypatch.setattr(ops, "use_triton", lambda backend, *x, **sizes: backend == "auto")
    monkeypatch.setattr(
        backends, "_shared_memory", lambda x: backends._device_memory(torch.device("cuda", 0))
    )
    compiled = torch.compile(lambda *x: ops.slstm(*x)[0], backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(*slstm_inputs()), ops.slstm(*slstm_inputs(), backend="torch")[0]
    )


@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
@pytest.mark.parametrize("backend", ["auto", "torch", "triton"])
def test_exported_graphs_are_plain_torch(run, inputs, state, backend: str) -> None:
    class Cell(torch.nn.Module):
        def forward(self, *parts):
            return run(*parts, backend=backend)[0]

    with torch.no_grad():
        program = torch.export.export(Cell(), tuple(inputs()))
        expected = run(*inputs(), backend="torch")[0]
    assert "xlstm_ts" not in program.graph_module.code
    torch.testing.assert_close(program.module()(*inputs()), expected)


@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
def test_modules_that_train_are_exported_for_inference(run, inputs, state) -> None:
    class Cell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ParameterList(inputs())

        def forward(self, gain):
            return run(*(gain * part for part in self.parts))[0]

    cell, one = Cell(), torch.ones((), device=inputs()[0].device)
    program = torch.export.export(cell, (one,))
    torch.testing.assert_close(program.module()(one), cell(one).detach())


@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
def test_impossible_choices_name_the_cure(run, inputs, state, monkeypatch) -> None:
    with pytest.raises(ValueError, match="'auto', 'triton' or 'torch'"):
        run(*inputs(), backend="cuda")
    with pytest.raises(BackendError, match=r"float64; use backend='auto'"):
        run(*(x.double() for x in inputs()), backend="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="needs a CUDA device, got tensors on cpu"):
        run(*(x.cpu() for x in inputs()), backend="triton")
    monkeypatch.setattr(backends, "HAS_TRITON", False)
    with pytest.raises(BackendError, match="package triton"):
        run(*inputs(), backend="triton")


def test_large_heads_are_refused() -> None:
    wide = [draw(1, 3, 1, 129) for _ in range(3)]
    gates = [draw(1, 3, 1) for _ in range(2)]
    with pytest.raises(BackendError, match="at most 128, got 129"):
        ops.mlstm(*wide, *gates, backend="triton")


class OnCuda(NamedTuple):
    is_cuda: bool = True
    device: torch.device = torch.device("cuda", 0)


def test_auto_says_once_why_a_gpu_does_without(monkeypatch) -> None:
    def chosen(dtype=torch.float32, head=64):
        return backends.use_triton("auto", OnCuda(), dtype=dtype, head=head)

    backends._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"at most 128, got 129: take more and smaller heads"):
        assert not chosen(head=129)
    assert not chosen(head=129)
    assert not chosen(dtype=torch.float64)
    assert chosen()
    monkeypatch.setattr(backends, "HAS_TRITON", False)
    with pytest.warns(RuntimeWarning, match="pip install triton"):
        assert not chosen()


class Part(NamedTuple):
    gcnArchName: str  # noqa: N815 - torch's name


@pytest.mark.parametrize(
    ("part", "runs"),
    [("gfx942:sramecc+:xnack-", True), ("gfx950", True), ("gfx90a", False), ("gfx1100", False)],
)
def test_of_amd_the_parts_that_are_tiled_for(monkeypatch, part: str, runs: bool) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Part(part))
    backends._warn_once.cache_clear()
    sizes = {"dtype": torch.float32, "head": 64}
    if runs:
        assert backends.use_triton("auto", OnCuda(), **sizes)
        return
    with pytest.warns(RuntimeWarning, match=f"gfx95x of AMD, got {part}"):
        assert not backends.use_triton("auto", OnCuda(), **sizes)
    with pytest.raises(BackendError, match=f"got {part}; use backend='auto'"):
        backends.use_triton("triton", OnCuda(), **sizes)


def test_what_does_not_fit_falls_back_and_says_so_once(monkeypatch) -> None:
    monkeypatch.setattr(backends, "_shared_memory", lambda x: 99 * 1024)
    backends._warn_once.cache_clear()
    x = torch.empty(1, 1, 4, 1, 128)
    with pytest.warns(RuntimeWarning, match="precision='bf16' or smaller heads"):
        assert not backends.slstm_fits("auto", x, head=128, precision="fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not backends.slstm_fits("auto", x, head=128, precision="fp32")
        assert backends.slstm_fits("auto", x, head=64, precision="fp32")
    with pytest.raises(BackendError, match="no room for sLSTM heads of 128"):
        backends.slstm_fits("triton", x, head=128, precision="fp32")


@pytest.fixture
def matmul_setting() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("run", "inputs", "state"), CELLS)
@pytest.mark.parametrize(
    ("setting", "precision"), [("highest", "fp32"), ("high", "tf32"), ("medium", "bf16")]
)
@pytest.mark.usefixtures("matmul_setting")
def test_the_precision_is_torch_s_unless_it_is_given(
    monkeypatch, run, inputs, state, setting: str, precision: str
) -> None:
    asked = []
    module = mlstm_op if run is ops.mlstm else slstm_op
    compute = module.run

    def spy(*tensors, plan, **options):
        asked.append(plan.precision)
        return compute(*tensors, plan=plan, **options)

    monkeypatch.setattr(module, "run", spy)
    torch.set_float32_matmul_precision(setting)
    run(*inputs(5), backend="triton")
    run(*inputs(5), backend="triton", precision="tf32")
    assert asked == [precision, "tf32"]
