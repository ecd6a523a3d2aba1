"""The sLSTM kernels against the golden vectors and the reference; interpreted without a GPU."""

import pytest
import torch

from tests.kernels.test_golden import SLSTM_CASES, slstm_errors, tolerance, worst
from xlstm_ts.kernels import ops, reference
from xlstm_ts.kernels.states import SLSTMState
from xlstm_ts.kernels.tiling import fits, slstm_tiling

pytest.importorskip("triton")
slstm_triton = pytest.importorskip("xlstm_ts.kernels.slstm_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# B, T, H, D, with a state, with a mask: every size once, and what one of them can hide.
SHAPES = [
    (1, 1, 1, 4, False, True),
    (3, 1, 2, 16, True, False),
    (1, 15, 2, 8, False, False),
    (17, 15, 2, 24, True, True),
    (3, 16, 1, 32, False, True),
    (3, 17, 3, 16, True, True),
    (17, 17, 1, 64, False, True),
    (1, 17, 1, 128, True, False),
    (3, 17, 1, 128, False, True),
    (1, 63, 2, 32, True, True),
    (3, 63, 1, 64, True, False),
    (3, 130, 1, 4, True, True),
    (1, 130, 1, 24, False, False),
    (1, 500, 1, 8, True, True),
]


class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, r, b, mask, precision, *state):
        ctx.options = {
            "mask": mask,
            "state": SLSTMState(*state) if state else None,
            "tiling": slstm_tiling(x.shape[-1], precision),
            "precision": precision,
        }
        h, final, ctx.saved = slstm_triton.forward(x, r, b, **ctx.options)
        assert not any(part.isnan().any() for part in ctx.saved)  # every element is written
        ctx.save_for_backward(h, r)
        return h, *final

    @staticmethod
    def backward(ctx, dh, *dfinal):
        h, r = ctx.saved_tensors
        dx, dr, db, dstate = slstm_triton.backward(
            dh, SLSTMState(*dfinal), r=r, h=h, saved=ctx.saved, **ctx.options
        )
        state = dstate if ctx.options["state"] else ()
        return dx, dr, db, None, None, *state


def run(x, r, b, *, state=None, mask=None, precision="fp32"):
    inputs = [part.to(DEVICE) for part in (x, r, b)]
    mask = mask if mask is None else mask.to(DEVICE)
    h, *final = Scan.apply(*inputs, mask, precision, *(part.to(DEVICE) for part in state or ()))
    return h.cpu(), SLSTMState(*(part.cpu() for part in final))


def draw(B: int, T: int, H: int, D: int, *, state: bool, mask: bool):
    """Return x, r, b, and the parts of a state if any, and a mask: absent steps hold NaN."""
    torch.manual_seed(B * T + D)
    x, r, b = torch.randn(B, T, 4, H, D), torch.randn(H, 4, D, D) * D**-0.5, torch.randn(4, H, D)
    x[:, :, 1] += 2
    h, c, n, m = torch.randn(4, B, H, D).unbind()
    present = torch.rand(B, T) > 0.3
    present[0, : T // 3 + 1] = False  # an empty memory is read
    present[:, -1] |= state  # see test_nothing_at_all_passes_a_memory_on
    parts = [x, r, b] + ([h.tanh(), c, c.abs() + n.abs() + 0.1, m] if state else [])
    if mask:
        x[~present] = torch.nan
    return parts, present if mask else None


def results(form, parts, mask, **options) -> dict[str, torch.Tensor]:
    """Return outputs, last memory and every gradient of a sum that weighs all but m."""
    leaves = [part.clone().requires_grad_() for part in parts]
    state = SLSTMState(*leaves[3:]) if leaves[3:] else None
    h, final = form(*leaves[:3], state=state, mask=mask, **options)
    torch.manual_seed(0)
    loss = sum((torch.randn(part.shape) * part).sum() for part in (h, *final[:3]))
    grads = torch.autograd.grad(loss, leaves)
    names = ["dx", "dr", "db", "dh0", "dc0", "dn0", "dm0"]
    return {"h": h, **final._asdict(), **dict(zip(names, grads, strict=False))}


@pytest.mark.skipif(not SLSTM_CASES, reason="no golden vectors")
@pytest.mark.parametrize("case", SLSTM_CASES)
def test_golden(case: str) -> None:
    bound = tolerance(case, torch.float32)
    errors = slstm_errors(run, case, torch.float32)
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(shape) -> None:
    B, T, H, D, state, mask = shape
    if DEVICE == "cuda":
        room = torch.cuda.get_device_properties(DEVICE).shared_memory_per_block_optin
        if not fits(D, "fp32", room):
            pytest.skip(f"heads of {D} in float32 do not fit into {room} bytes")
    parts, present = draw(B, T, H, D, state=state, mask=mask)
    got = results(run, parts, present)
    truth = results(reference.slstm, [part.double() for part in parts], present)
    errors = {name: worst(got[name], value) for name, value in truth.items()}
    assert {name: error for name, error in errors.items() if not error <= 5e-6} == {}


def test_memory_is_poisoned() -> None:
    assert torch.zeros(1).new_empty(3).isnan().all()
    assert torch.empty(3).isnan().all()


@pytest.mark.parametrize("garbage", [torch.inf, -torch.inf, 1e38])
def test_absent_steps_are_never_used(garbage: float) -> None:
    parts, present = draw(2, 12, 2, 8, state=False, mask=True)
    expected = results(run, parts, present)
    spoilt = [parts[0].nan_to_num(garbage), *parts[1:]]
    got = results(run, spoilt, present)
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert expected["dx"][~present].abs().max() == 0


def test_nothing_at_all_leaves_the_empty_memory_and_no_gradient() -> None:
    parts, _ = draw(2, 5, 2, 8, state=False, mask=False)
    got = results(run, parts, torch.zeros(2, 5, dtype=torch.bool))
    assert (got.pop("m") == -1e30).all()
    assert all(part.abs().max() == 0 for part in got.values())


def test_nothing_at_all_passes_a_memory_on() -> None:
    """Like the scan in torch, and unlike the reference, whose m here has no scale to give."""
    parts, _ = draw(2, 5, 2, 8, state=True, mask=False)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    got, expected = (results(form, parts, nothing) for form in (run, ops.slstm))
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gate", [-1e4, -200.0, 200.0, 1e4])
def test_extreme_gates_stay_finite(gate: float) -> None:
    parts, _ = draw(2, 20, 1, 8, state=True, mask=False)
    parts[0][:, 5::7, :2] = gate
    parts[0][:, 3::5, 2:] = gate
    assert all(part.isfinite().all() for part in results(run, parts, None).values())


def launch(x, r, b, *state, mask, dh, dtype=torch.float32, precision="fp32"):
    """Return what the launchers give, as one list."""
    x, r, b, mask, dh = (part.to(DEVICE) for part in (x.to(dtype), r, b, mask, dh.to(dtype)))
    options = {
        "mask": mask,
        "state": SLSTMState(*(part.to(DEVICE) for part in state)),
        "tiling": slstm_tiling(x.shape[-1], precision),
        "precision": precision,
    }
    h, final, saved = slstm_triton.forward(x, r, b, **options)
    dx, dr, db, dstate = slstm_triton.backward(dh, None, r=r, h=h, saved=saved, **options)
    return [part.cpu() for part in (h, *final, dx, dr, db, *dstate)]


def test_layout_does_not_matter() -> None:
    parts, mask = draw(3, 9, 2, 8, state=True, mask=True)
    dh = torch.randn(3, 1, 2, 1).expand(3, 9, 2, 8)
    expected = launch(*parts, mask=mask, dh=dh.contiguous())
    gates_first = parts[0].permute(2, 0, 1, 3, 4).contiguous().permute(1, 2, 0, 3, 4)
    spread = [torch.stack((part, part), -1)[..., 0] for part in (*parts, mask)]
    for got in (
        launch(gates_first, *parts[1:], mask=mask, dh=dh),
        launch(*spread[:-1], mask=spread[-1], dh=dh),
    ):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_nothing_saved_without_a_backward_pass() -> None:
    parts, mask = draw(3, 9, 2, 8, state=True, mask=True)
    expected = launch(*parts, mask=mask, dh=torch.ones(3, 9, 2, 8))
    inputs = [part.to(DEVICE) for part in parts]
    h, final, saved = slstm_triton.forward(
        *inputs[:3],
        state=SLSTMState(*inputs[3:]),
        mask=mask.to(DEVICE),
        tiling=slstm_tiling(8, "fp32"),
        precision="fp32",
        save=False,
    )
    assert saved is None
    assert torch.equal(h.cpu(), expected[0])
    assert torch.equal(final.c.cpu(), expected[2])


def test_grid_has_room_for_any_batch(monkeypatch) -> None:
    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda **arguments: None

    for name in ("forward_kernel", "backward_kernel"):
        monkeypatch.setattr(slstm_triton, name, Kernel())
    x, r, b = (
        torch.empty(shape, device="meta")
        for shape in ((1 << 22, 1, 4, 2, 8), (2, 4, 8, 8), (4, 2, 8))
    )
    options = {
        "state": None,
        "mask": None,
        "tiling": slstm_tiling(8, "fp32"),
        "precision": "fp32",
    }
    h, _, saved = slstm_triton.forward(x, r, b, **options)
    slstm_triton.backward(h, None, r=r, h=h, saved=saved, **options)
    assert grids == [(1 << 18, 2)] * 2  # CUDA holds 2**31 - 1 programs, and 65,535 on other axes


def test_state_carries_a_sequence_on() -> None:
    parts, mask = draw(3, 20, 2, 8, state=True, mask=True)
    whole, last = run(*parts[:3], state=SLSTMState(*parts[3:]), mask=mask)
    first, between = run(
        parts[0][:, :7], *parts[1:3], state=SLSTMState(*parts[3:]), mask=mask[:, :7]
    )
    second, final = run(parts[0][:, 7:], *parts[1:3], state=between, mask=mask[:, 7:])
    assert torch.equal(torch.cat((first, second), 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(final, last, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_stays_close(precision: str, dtype: torch.dtype) -> None:
    parts, mask = draw(3, 14, 2, 16, state=True, mask=True)
    parts[0] = parts[0].to(torch.bfloat16).float()
    dh = torch.randn(3, 14, 2, 16).to(torch.bfloat16).float()
    expected = launch(*parts, mask=mask, dh=dh)
    got = launch(*parts, mask=mask, dh=dh, dtype=dtype, precision=precision)
    assert got[0].dtype == got[5].dtype == dtype
    assert {part.dtype for part in (*got[1:5], *got[6:])} == {torch.float32}
    for a, b in zip(got, expected, strict=True):
        assert (a.float() - b).norm() <= 3e-2 * b.norm()


@pytest.mark.parametrize("T", [1, 100, 512, 700])
def test_the_gradient_of_recurrent_weights_sums_all_parts(T: int) -> None:
    torch.manual_seed(T)
    dx, before = torch.randn(2, T, 4, 3, 5), torch.randn(2, T, 3, 5)
    expected = torch.einsum("btgho,bthi->hgoi", dx.double(), before.double())
    got = slstm_triton._products(dx, before)
    torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-4)
