"""Every kernel with every tiling compiles for each GPU, within its memory and its registers.

No GPU is needed. The launchers run as they are, on the CPU, but with a `Recorder` in the place of
each kernel; what it notes is compiled in other processes, since in this one kernels run in the
interpreter. A repeated run takes them from Triton's cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, get_args

import pytest
import torch

from tests.kernels.aot import TARGETS, Launch, Recorder, ask
from xlstm_ts.kernels import launch, mlstm_triton, slstm_triton
from xlstm_ts.kernels.precision import Precision
from xlstm_ts.kernels.states import MLSTMState, SLSTMState
from xlstm_ts.kernels.tiling import fits, mlstm_tiling, scan_shared_bytes, slstm_tiling

# Shared memory that one program may use, bytes.
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
HEADS, PRECISIONS = (16, 32, 64, 128), get_args(Precision)
# Each precision where it takes the most memory or spills most: smaller heads are for sm_90.
OTHERS: tuple[tuple[int, Precision], ...] = ((64, "tf32"), (128, "fp32"), (128, "bf16"))
FLOATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def recording(target: str) -> Iterator[list[Launch]]:
    """Note the launches of both cells as they would be on `target`."""
    launches: list[Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "INTERPRETED", False)
        patch.setattr(launch, "AMD", TARGETS[target].backend == "hip")
        for module in (mlstm_triton, slstm_triton):
            for name in vars(module).keys() & {"forward_kernel", "backward_kernel", "join_kernel"}:
                patch.setattr(module, name, Recorder(getattr(module, name), launches))
        yield launches


def launch_mlstm(
    K: int, V: int, precision: Precision, *, B=2, T=40, segments=1, optional=True
) -> None:
    """Launch both ways; without what is optional there is neither state nor mask."""
    dtype = FLOATS[precision]
    q, k, v = (torch.empty(B, T, 1, D, dtype=dtype) for D in (K, K, V))
    i, f = torch.empty(B, T, 1, dtype=dtype), torch.empty(B, T, 1, dtype=dtype)
    state = MLSTMState(torch.empty(B, 1, K, V), torch.empty(B, 1, K), torch.empty(B, 1))
    common: dict[str, Any] = {
        "state": state if optional else None,
        "mask": torch.ones(B, T, dtype=torch.bool) if optional else None,
        "precision": precision,
        "segments": segments,
    }
    tilings = [mlstm_tiling(K, V, precision, backward=backward) for backward in (False, True)]
    h, c, n, m, d, mc = mlstm_triton.forward(q, k, v, i, f, tiling=tilings[0], **common)
    common |= {"q": q, "k": k, "v": v, "i": i, "f": f, "h": h, "d": d, "mc": mc}
    dc, dn = (c, n) if optional else (None, None)
    mlstm_triton.backward(v, dc, dn, final=MLSTMState(c, n, m), tiling=tilings[1], **common)


def launch_slstm(D: int, precision: Precision, *, B=2, T=40, optional=True) -> None:
    """Launch both ways; without what is optional nothing is given or saved but what must be."""
    x, r, b = torch.empty(B, T, 4, 1, D), torch.empty(1, 4, D, D), torch.empty(4, 1, D)
    state = SLSTMState(*torch.empty(4, B, 1, D).unbind())
    common: dict[str, Any] = {
        "state": state if optional else None,
        "mask": torch.ones(B, T, dtype=torch.bool) if optional else None,
        "tiling": slstm_tiling(D, precision),
        "precision": precision,
    }
    h, final, saved = slstm_triton.forward(x.to(FLOATS[precision]), r, b, **common)
    slstm_triton.backward(h, final if optional else None, r=r, h=h, saved=saved, **common)
    if not optional:
        slstm_triton.forward(x.to(FLOATS[precision]), r, b, save=False, **common)


def compile_within(target: str, launches: list[Launch]) -> list[Any]:
    """Hold launches to the shared memory of their target, and threads to what they may spill."""
    launches = list({str(one): one for one in launches}.values())
    found = list(zip(launches, ask(target, launches), strict=True))
    failed = {place(one): used for one, used in found if "error" in used}
    assert failed == {}, target
    over = {
        place(one): used
        for one, used in found
        if used["shared"] > SHARED[target] or used["spill_bytes"] > spill_budget(one)
    }
    assert over == {}, target
    return found


def spill_budget(one: Launch) -> int:
    """Return the bytes that a thread may spill.

    On an H200 the fastest tilings of the mLSTM are those that fill the registers and spill a
    little: some hundred bytes cost less than twice as many warps that wait for one another.
    """
    arguments = one.arguments
    if "ROWS" in arguments:  # an sLSTM: what is set aside before the loop, and read back after it
        return 128
    if "REVERSE" in arguments:
        return 0
    return 2048


def place(one: Launch) -> str:
    sizes = ("K", "V", "D", "DOT", "PRECISION")
    return f"{one.kernel} {[one.arguments[name] for name in sizes if name in one.arguments]}"


def check_slstm(target: str, cases: Sequence[tuple[int, Precision]], *, optional=True) -> None:
    with recording(target) as launches:
        for case in cases:
            launch_slstm(*case, optional=optional)
    for one, used in compile_within(target, launches):
        precision = "bf16" if one.arguments["DOT"] == "tl.bf16" else "fp32"
        stated = scan_shared_bytes(one.arguments["D"], precision, lanes=TARGETS[target].warp_size)
        assert used["shared"] <= stated <= SHARED[target], place(one)


def within(target: str) -> set[tuple[int, Precision]]:
    lanes = TARGETS[target].warp_size
    return {
        (D, precision)
        for D, precision in product(HEADS, PRECISIONS)
        if fits(D, precision, SHARED[target], lanes=lanes)
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mlstm_for_sm_90(precision: Precision) -> None:
    with recording("sm_90") as launches:
        for D in HEADS:
            launch_mlstm(D, D, precision, segments=2)
    compile_within("sm_90", launches)


def test_slstm_for_sm_90() -> None:
    check_slstm("sm_90", sorted(within("sm_90")))


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_mlstm_for_others(target: str) -> None:
    with recording(target) as launches:
        for D, precision in OTHERS:
            launch_mlstm(D, D, precision, segments=2)
    compile_within(target, launches)


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_slstm_for_others(target: str) -> None:
    cases = {(16, "tf32"), (32, "bf16"), (64, "fp32"), (128, "bf16"), (128, "tf32")}
    check_slstm(target, sorted(cases & within(target)))


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_without_state_and_with_odd_heads(target: str) -> None:
    with recording(target) as launches:
        for K, V, precision in ((32, 32, "bf16"), (24, 8, "tf32"), (16, 128, "bf16")):
            launch_mlstm(K, V, precision, optional=False)
        launch_mlstm(100, 16, "tf32")
    compile_within(target, launches)
    check_slstm(target, [(24, "tf32"), (64, "bf16")], optional=False)


def test_only_what_fits_is_said_to_fit() -> None:
    everything, too_large = set(product(HEADS, PRECISIONS)), {(128, "fp32"), (128, "tf32")}
    assert within("gfx942") == everything
    for target in ("sm_80", "sm_90", "sm_100"):
        assert within(target) == everything - too_large
    with recording("sm_90") as launches:
        launch_slstm(128, "fp32")
    assert all(used["shared"] > SHARED["sm_90"] for used in ask("sm_90", launches))


@pytest.mark.parametrize(
    ("form", "binaries"), [("slstm", 2), ("mlstm", 2), ("mlstm in segments", 7)]
)
def test_new_lengths_and_batches_compile_nothing(form: str, binaries: int) -> None:
    with recording("sm_90") as launches:
        for B, T in product((1, 2, 15, 16, 17), (33, 48, 64, 65)):
            if form == "slstm":
                launch_slstm(24, "bf16", B=B, T=T)
            else:
                launch_mlstm(24, 8, "bf16", B=B, T=T, segments=2 if "segments" in form else 1)
    assert len(set(ask("names", launches))) == binaries
