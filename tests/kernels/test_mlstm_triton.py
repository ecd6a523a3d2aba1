"""The GPU kernels of the mLSTM, in Triton's interpreter where there is no GPU.

Outputs start as NaN (see `conftest`), so that an element that nobody writes fails every
comparison. The interpreter computes all products in float32.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from xlstm_ts.kernels import mlstm_triton, reference
from xlstm_ts.kernels.states import MLSTMState
from xlstm_ts.kernels.tiling import Tiling, mlstm_tiling

FOLDER = Path(os.environ.get("XLSTM_TS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
GOLDEN = sorted(path.name for path in FOLDER.glob("mlstm_*.npz"))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("q", "k", "v", "i", "f")
# Where input gates are open the denominator crosses zero and magnifies what is rounded. On a device
# exp is off by 2 ulp and a quotient by 1, in the interpreter both are rounded once.
BOUND = 2e-5 if DEVICE == "cuda" else 5e-6


class Case(NamedTuple):
    """Inputs in float64, cotangents of the outputs and of the final memory."""

    inputs: list[torch.Tensor]
    state: MLSTMState | None
    mask: torch.Tensor | None
    dh: torch.Tensor
    dc: torch.Tensor | None
    dn: torch.Tensor | None


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make_case(
    T: int, K: int, V: int, *, state: bool = False, mask: bool = False, B: int = 2, H: int = 1
) -> Case:
    torch.manual_seed(1000 * T + K + V)
    vectors = [draw(B, T, H, K), draw(B, T, H, K), draw(B, T, H, V)]
    gates = [draw(B, T, H) - 3, draw(B, T, H) + 2]
    start = MLSTMState(draw(B, H, K, V), draw(B, H, K), draw(B, H)) if state else None
    present = None
    if mask:
        present = torch.rand(B, T) > 0.3
        present[0, : T // 3] = False  # an empty memory is read
        present[-1, -(T // 4) - 1 :] = False
    return Case(
        [*vectors, *gates], start, present, draw(B, T, H, V), draw(B, H, K, V), draw(B, H, K)
    )


def move(x, dtype: torch.dtype = torch.float32):
    """Bring a tensor, a state or nothing to the device and the dtype of the kernels."""
    if x is None:
        return None
    if isinstance(x, MLSTMState):
        return MLSTMState(*(move(part) for part in x))
    return x.to(DEVICE, x.dtype if x.dtype == torch.bool else dtype)


def run(
    case: Case,
    *,
    segments: int = 1,
    tiling: Tiling | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = "fp32",
) -> dict[str, torch.Tensor]:
    """Return outputs, final memory and all gradients by name."""
    q, k, v, i, f = (move(x, dtype) for x in case.inputs)
    state, mask = move(case.state), move(case.mask)
    sizes = (q.shape[-1], v.shape[-1], precision)
    shared = {"state": state, "mask": mask, "precision": precision, "segments": segments}
    h, c, n, m, d, mc = mlstm_triton.forward(
        q, k, v, i, f, tiling=tiling or mlstm_tiling(*sizes, backward=False), **shared
    )
    gradients = mlstm_triton.backward(
        move(case.dh, dtype),
        move(case.dc),
        move(case.dn),
        **dict(zip(NAMES, (q, k, v, i, f), strict=True)),
        h=h,
        d=d,
        mc=mc,
        final=MLSTMState(c, n, m),
        tiling=tiling or mlstm_tiling(*sizes, backward=True),
        **shared,
    )
    results = dict(zip(("h", "c", "n", "m"), (h, c, n, m), strict=True))
    names = [f"d{name}" for name in (*NAMES, "c0", "n0", "m0")]
    results |= {name: x for name, x in zip(names, gradients, strict=True) if x is not None}
    for name, like in zip(NAMES, (q, k, v, i, f), strict=True):
        assert results[f"d{name}"].dtype == like.dtype
        assert results[f"d{name}"].shape == like.shape
    return {name: x.cpu() for name, x in results.items()}


def truth(case: Case, m: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the same from the reference, its final memory at the scale `m`."""
    leaves = [x.clone().requires_grad_() for x in (*case.inputs, *(case.state or ()))]
    state = MLSTMState(*leaves[5:]) if case.state else None
    h, final = reference.mlstm(*leaves[:5], state=state, mask=case.mask)
    scale = (final.m - m.double()).exp()
    c, n = final.c * scale[..., None, None], final.n * scale[..., None]
    loss = (h * case.dh).sum()
    for part, weight in ((c, case.dc), (n, case.dn)):
        if weight is not None:
            loss = loss + (part * weight).sum()
    gradients = torch.autograd.grad(loss, leaves)
    names = [f"d{name}" for name in (*NAMES, "c0", "n0", "m0")]
    values = dict(zip(names[: len(leaves)], gradients, strict=True))
    return {"h": h.detach(), "c": c.detach(), "n": n.detach(), **values}


def errors(got: dict[str, torch.Tensor], true: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the largest error of each tensor over its largest value."""
    sizes = {name: x.abs().max().item() for name, x in true.items()}
    # A sum over steps of what rows gain and inputs lose: exact to the size of its terms.
    sizes["df"] = max(sizes["df"], sizes["di"])
    return {
        name: (got[name].double() - x).abs().max().item() / (max(sizes[name], 1e-12))
        for name, x in true.items()
    }


def beyond(found: dict[str, float], bound: float) -> dict[str, float]:
    return {name: error for name, error in found.items() if not error <= bound}


def load(name: str) -> tuple[Case, dict[str, torch.Tensor]]:
    with np.load(FOLDER / name) as archive:
        data = {key: torch.as_tensor(archive[key]) for key in archive.files}
    start = MLSTMState(data["C0"], data["n0"], data["m0"]) if "C0" in data else None
    inputs = [data[key].transpose(1, 2) for key in NAMES]
    true = {"h": data["h"].transpose(1, 2), "c": data["CT"], "n": data["nT"], "m": data["mT"]}
    true |= {f"d{key}": data[f"d{key}"].transpose(1, 2) for key in NAMES}
    true |= {f"d{key.lower()}": data[f"d{key}"] for key in ("C0", "n0", "m0") if "C0" in data}
    return Case(inputs, start, None, data["dh"].transpose(1, 2), None, None), true


@pytest.mark.skipif(not GOLDEN, reason=f"no golden vectors in {FOLDER}")
@pytest.mark.parametrize(
    ("name", "segments"),
    [(name, 1) for name in GOLDEN]
    + [(name, 3) for name in GOLDEN if any(part in name for part in ("init", "t130", "closed"))],
)
def test_golden(name: str, segments: int) -> None:
    case, true = load(name)
    got = run(case, segments=segments)
    scale = (got.pop("m").double() - true.pop("m")).exp()
    got["c"], got["n"] = got["c"] * scale[..., None, None], got["n"] * scale[..., None]
    extreme = "ext30" in name or "iopen" in name
    if "t1_" in name and "init" not in name:
        # One step from nothing: dq, dk and di are zero, and what is stored is 1e-16 of noise.
        for key in ("dq", "dk", "di", "df"):
            assert got.pop(key).abs().max() < 1e-6
            true.pop(key)
        true["di"] = got["di"] = true["df"] = got["df"] = torch.zeros(1)
    assert beyond(errors(got, true), 1e-4 if extreme else BOUND) == {}


GRID = [
    # T, K, V, state, mask, segments
    (1, 8, 8, False, False, 1),
    (1, 16, 24, True, True, 1),
    (15, 24, 8, True, False, 1),
    (16, 16, 16, False, True, 3),
    (17, 32, 32, True, True, 1),
    (63, 8, 24, True, True, 3),
    (63, 64, 64, False, False, 1),
    (130, 16, 16, True, False, 3),
    (130, 24, 32, False, True, 1),
    (63, 128, 128, True, True, 1),
    (20, 16, 128, True, False, 2),
    (40, 128, 16, False, True, 1),
    (500, 8, 8, True, True, 3),
    (500, 32, 32, False, False, 1),
]


@pytest.mark.parametrize(("T", "K", "V", "state", "mask", "segments"), GRID)
def test_equals_reference(T, K, V, state, mask, segments) -> None:
    case = make_case(T, K, V, state=state, mask=mask, B=1 if T == 500 else 2)
    got = run(case, segments=segments)
    assert beyond(errors(got, truth(case, got["m"])), BOUND) == {}


def test_uninitialised_memory_is_nan() -> None:
    assert torch.empty(3, device=DEVICE).isnan().all()


def test_gates_that_hardly_forget_add_up() -> None:
    # log sigmoid(8.8) is -1.5e-4, and 1 + exp(-8.8) knows no more than three digits of it.
    case = make_case(400, 8, 8, B=1)
    case.inputs[3][:, 1:] = -20
    case.inputs[4][:] = 8.8
    got = run(case)
    assert beyond(errors(got, truth(case, got["m"])), BOUND) == {}


@pytest.mark.parametrize(
    ("chunk", "block"), [(16, 16), (32, 16), (64, 32), (128, 32)], ids=lambda size: str(size)
)
def test_tiling_changes_nothing(chunk: int, block: int) -> None:
    case = make_case(90, 16, 32, state=True, mask=True, B=1)
    got = run(case, tiling=Tiling(chunk=chunk, value_block=block, warps=4, stages=1), segments=2)
    assert beyond(errors(got, truth(case, got["m"])), BOUND) == {}


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("given", ["none", "dc", "dn"])
def test_gradients_of_the_final_memory_may_be_missing(given: str, segments: int) -> None:
    case = make_case(50, 16, 16, state=given == "dc")
    case = case._replace(
        dc=case.dc if given == "dc" else None, dn=case.dn if given == "dn" else None
    )
    got = run(case, segments=segments)
    assert beyond(errors(got, truth(case, got["m"])), BOUND) == {}
    assert ("dc0" in got) == (case.state is not None)


def test_final_memory_is_only_needed_for_its_gradients() -> None:
    q, k, v, i, f = (move(x) for x in make_case(40, 16, 16).inputs)
    tiling = mlstm_tiling(16, 16, "fp32", backward=True)
    common = {"state": None, "mask": None, "tiling": tiling, "precision": "fp32"}
    h, *final, d, mc = mlstm_triton.forward(q, k, v, i, f, **common)
    common |= {"q": q, "k": k, "v": v, "i": i, "f": f, "h": h, "d": d, "mc": mc}
    for segments in (1, 2):
        with_it, without = (
            mlstm_triton.backward(v, None, None, final=last, segments=segments, **common)
            for last in (MLSTMState(*final), None)
        )
        for got, expected in zip(with_it[:5], without[:5], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "heads first":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "slice":  # as of a projection that gives more than one tensor
        return torch.cat((x, x), -1)[..., : x.shape[-1]]
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


@pytest.mark.parametrize("layout", ["heads first", "slice", "columns apart"])
def test_layout_changes_nothing(layout: str) -> None:
    case = make_case(20, 8, 24, mask=True, H=2)
    expected = run(case)
    # Laid out after the cast, which would make a slice dense; the second one in `run` does nothing.
    *inputs, dh = (strided(move(x), layout) for x in (*case.inputs, case.dh))
    assert not any(move(x).is_contiguous() for x in (*inputs, dh))
    mask = move(torch.cat((case.mask, case.mask), -1))[:, :20] if layout == "slice" else case.mask
    got = run(case._replace(inputs=inputs, dh=dh, mask=mask))
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize("shape", [(1,), (16,), (2, 1, 1, 16)], ids=str)
def test_cotangent_may_be_expanded(shape: tuple[int, ...]) -> None:
    case = make_case(20, 16, 16)
    dh = move(draw(*shape)).expand(case.dh.shape)
    assert move(dh).stride(1) == 0
    expected = run(case._replace(dh=dh.contiguous()))
    got = run(case._replace(dh=dh))
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf])
def test_absent_steps_are_never_used(garbage: float, segments: int) -> None:
    case = make_case(40, 16, 16, state=True, mask=True)
    absent = ~case.mask
    fill = [absent.view(2, 40, *(1,) * (x.ndim - 2)) for x in case.inputs]
    clean, spoilt = (
        case._replace(inputs=[x.masked_fill(a, z) for x, a in zip(case.inputs, fill, strict=True)])
        for z in (0.0, garbage)
    )
    expected, got = run(clean, segments=segments), run(spoilt, segments=segments)
    assert not got["dq"][absent].any()  # a query that is no number reads as zero, unlike a zero
    got["dq"], expected["dq"] = got["dq"][~absent], expected["dq"][~absent]
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    for name in ("dk", "dv", "di", "df"):
        assert not got[name][absent].any()


@pytest.mark.parametrize("segments", [1, 2])
def test_nothing_at_all_leaves_the_empty_memory(segments: int) -> None:
    case = make_case(40, 16, 16)._replace(mask=torch.zeros(2, 40, dtype=torch.bool))
    got = run(case, segments=segments)
    assert (got.pop("m") == -1e30).all()
    assert [name for name, x in got.items() if x.any() or x.isnan().any()] == []


@pytest.mark.parametrize("segments", [1, 3])
def test_a_cut_changes_nothing(segments: int) -> None:
    q, k, v, i, f = (move(x) for x in make_case(70, 16, 16).inputs)
    options = {
        "mask": None,
        "tiling": mlstm_tiling(16, 16, "fp32", backward=False),
        "precision": "fp32",
        "segments": segments,
    }
    whole = mlstm_triton.forward(q, k, v, i, f, state=None, **options)
    head, tail = ([x[:, part] for x in (q, k, v, i, f)] for part in (slice(33), slice(33, None)))
    first = mlstm_triton.forward(*head, state=None, **options)
    second = mlstm_triton.forward(*tail, state=MLSTMState(*first[1:4]), **options)
    torch.testing.assert_close(torch.cat((first[0], second[0]), 1), whole[0])
    for got, expected in zip(second[1:4], whole[1:4], strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("value_block", [16, 32])
def test_bfloat16_tensors(value_block: int) -> None:
    # What is rounded is the storage: 8 bits of h and of the gradients, of h in the backward too.
    case = make_case(60, 16, 32, mask=True)
    case = case._replace(
        inputs=[x.bfloat16().double() for x in case.inputs], dh=case.dh.bfloat16().double()
    )
    tiling = Tiling(chunk=16, value_block=value_block, warps=4, stages=1)
    got = run(case, dtype=torch.bfloat16, tiling=tiling)
    assert got["h"].dtype == torch.bfloat16
    assert beyond(errors(got, truth(case, got["m"])), 3e-2) == {}


SHORT = [(1, 8, 8, 1), (17, 32, 32, 1), (63, 8, 24, 3), (130, 24, 32, 1), (500, 32, 32, 3)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU products are shorter: see below")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize(("T", "K", "V", "segments"), SHORT)
def test_short_precisions_but_for_their_products(T, K, V, segments, precision: str) -> None:
    # The interpreter computes products in float32. What is left is how gates are summed up.
    case = make_case(T, K, V, state=True, mask=T != 130, B=1)
    got = run(case, precision=precision, segments=segments)
    assert beyond(errors(got, truth(case, got["m"])), 5 * BOUND) == {}


@pytest.mark.parametrize("f", [-torch.inf, -1e30, -300.0])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("tf32", 5e-3), ("bf16", 3e-2)])
def test_a_shut_gate_resets_the_memory(precision: str, bound: float, f: float) -> None:
    case = make_case(50, 8, 8, state=True)
    # No denominator crosses zero, which would magnify what is rounded: later gates are closed, and
    # while these are open, keys and queries point one way.
    case.inputs[3].sub_(2)
    case.inputs[3][:, :7] += 40  # only a gate that is shut for good hides what was written so
    for vectors in case.inputs[:2]:
        vectors[:, :7].abs_()
    for steps in ([0], [7, 8], range(33, 50)):
        case.inputs[4][:, list(steps)] = f
    got = run(case, precision=precision)
    for name, true in truth(case, got["m"]).items():
        allowed = bound * max(1.0, true.norm()) * (5 if name == "df" else 1)
        assert (got[name].double() - true).norm() <= allowed, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("tf32", 5e-3), ("bf16", 3e-2)])
@pytest.mark.parametrize("D", [16, 32, 64, 128])
def test_low_precision_by_norm(D: int, precision: str, bound: float) -> None:
    # Closed input gates keep the denominator at its floor: elsewhere it crosses zero, and a few
    # rows then carry any error. What df sums up cancels, so that more of it is rounding.
    case = make_case(300, D, D, state=True)
    case.inputs[3].sub_(2)
    got = run(case, precision=precision)
    for name, true in truth(case, got["m"]).items():
        allowed = bound * true.norm() * (5 if name == "df" else 1)
        assert (got[name].double() - true).norm() <= allowed, name


@pytest.mark.parametrize(
    ("programs", "T", "expected"), [(1, 100_000, 184), (8, 100_000, 33), (600, 100_000, 1)]
)
def test_segments_fill_the_device(monkeypatch, programs: int, T: int, expected: int) -> None:
    class Device:
        multi_processor_count = 132

    class Values:
        is_cuda, device, shape = True, "cuda", (programs, T, 1, 16)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Device)
    tiling = Tiling(chunk=32, value_block=16, warps=1, stages=1)
    count, span = mlstm_triton._cut(None, Values, tiling=tiling)
    assert count == expected
    assert span % 32 == 0
    assert (count - 1) * span < T <= count * span
