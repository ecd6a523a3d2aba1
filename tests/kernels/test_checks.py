"""What the operators refuse: each error names the argument, what it got and what was expected."""

from typing import Any

import pytest
import torch

from xlstm_ts.kernels import ops
from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import Tiling

B, T, H, D = 2, 3, 2, 4


def mlstm_parts() -> dict[str, Any]:
    vectors = {name: torch.randn(B, T, H, D) for name in "qkv"}
    gates = {name: torch.randn(B, T, H) for name in "if"}
    state = MLSTMState(torch.zeros(B, H, D, D), torch.zeros(B, H, D), torch.zeros(B, H))
    return {**vectors, **gates, "state": state, "mask": torch.ones(B, T, dtype=torch.bool)}


def slstm_parts() -> dict[str, Any]:
    weights = {"r": torch.randn(H, 4, D, D), "b": torch.randn(4, H, D)}
    state = SLSTMState(*torch.ones(4, B, H, D).unbind())
    mask = torch.ones(B, T, dtype=torch.bool)
    return {"x": torch.randn(B, T, 4, H, D), **weights, "state": state, "mask": mask}


def one_step(parts: dict[str, Any]) -> dict[str, Any]:
    fixed = ("r", "b", "state")
    return {name: x if name in fixed else x[:, 0] for name, x in parts.items()}


CELLS = [
    pytest.param(ops.mlstm, mlstm_parts, id="mlstm"),
    pytest.param(ops.mlstm_step, lambda: one_step(mlstm_parts()), id="mlstm_step"),
    pytest.param(ops.slstm, slstm_parts, id="slstm"),
    pytest.param(ops.slstm_step, lambda: one_step(slstm_parts()), id="slstm_step"),
]


def names(parts: dict[str, Any]) -> list[str]:
    return [name for name in parts if name != "state"]


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_plain_tuples_and_any_float_are_taken(run, draw) -> None:
    parts = draw()
    expected, _ = run(**parts)
    parts["state"] = tuple(part.double() for part in parts["state"])
    got, state = run(**parts)
    assert isinstance(state, (MLSTMState, SLSTMState))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_what_is_no_tensor(run, draw) -> None:
    for name in names(draw()):
        parts = draw()
        parts[name] = parts[name].tolist()
        with pytest.raises(ValueError, match=f"`{name}` must be a tensor, got list"):
            run(**parts)
        if name != "mask":
            with pytest.raises(ValueError, match=f"`{name}` must be a tensor, got NoneType"):
                run(**{**parts, name: None})


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.int64, torch.complex64, torch.bool], ids=str
)
@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_other_dtypes(run, draw, dtype: torch.dtype) -> None:
    for name in names(draw()):
        parts = draw()
        parts[name] = parts[name].to(torch.uint8 if name == "mask" else dtype)
        rule = "bool, true" if name == "mask" else "float16, bfloat16, float32 or float64, got"
        with pytest.raises(ValueError, match=f"`{name}` must be {rule}"):
            run(**parts)
    parts = draw()
    parts["state"] = parts["state"]._replace(n=parts["state"].n.to(dtype))
    with pytest.raises(ValueError, match=r"`state\.n` must be float16, bfloat16"):
        run(**parts)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_other_devices(run, draw) -> None:
    for name in names(draw())[1:]:
        parts = draw()
        parts[name] = parts[name].to("meta")
        with pytest.raises(ValueError, match=f"`{name}` must be on cpu like .*, got meta"):
            run(**parts)
    parts = draw()
    parts["state"] = parts["state"]._replace(m=parts["state"].m.to("meta"))
    with pytest.raises(ValueError, match=r"`state\.m` must be on cpu like .*, got meta"):
        run(**parts)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_everything_may_be_on_another_device(run, draw) -> None:
    moved = {name: x if name == "state" else x.to("meta") for name, x in draw().items()}
    moved["state"] = type(moved["state"])(*(part.to("meta") for part in moved["state"]))
    h, state = run(**moved)
    assert h.is_meta
    assert all(part.is_meta for part in state)


@pytest.mark.parametrize(("run", "draw"), CELLS)
def test_what_is_no_state(run, draw) -> None:
    whole = draw()["state"]
    fields = ", ".join(whole._fields)
    wrong = {
        "Tensor": whole.c,
        "list of 2": [whole.c, whole.n],
        "tuple of 2": (whole.c, whole.n),
        "tuple of 5": (whole.c,) * 5,
        "dict": whole._asdict(),
    }
    for kind, state in wrong.items():
        with pytest.raises(ValueError, match=rf"`state` must be a tuple \({fields}\), got {kind}"):
            run(**{**draw(), "state": state})
    with pytest.raises(ValueError, match=r"`state\.c` must be a tensor, got float"):
        run(**{**draw(), "state": whole._replace(c=0.0)})


@pytest.mark.parametrize("value", [2.5, True, "8", 0, -1], ids=repr)
@pytest.mark.parametrize("name", ["chunk_size", "segments"])
def test_counts_are_integers(name: str, value: object) -> None:
    rule = f"`{name}` must be an integer of at least 1, got {value!r}"
    with pytest.raises(ValueError, match=rule):
        ops.mlstm(**mlstm_parts(), **{name: value})


def test_one_chunk_has_no_chunk_size() -> None:
    with pytest.raises(ValueError, match=r"`chunk_size` must be None with form='parallel'.*got 8"):
        ops.mlstm(**mlstm_parts(), form="parallel", chunk_size=8)


@pytest.mark.parametrize("wrong", [{"chunk": 16.0}, {"warps": True}, {"stages": 1.5}], ids=str)
def test_tilings_are_integers(wrong: dict[str, Any]) -> None:
    tiling = Tiling(16, 16, 1, 1)
    with pytest.raises(ValueError, match="`tiling`"):
        ops.mlstm(**mlstm_parts(), tiling=(tiling, tiling._replace(**wrong)))
