"""Two processes train what one trains, and agree on when to stop.

`main` is what each of the two runs.
"""

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from xlstm_ts import XLSTMForecaster, training
from xlstm_ts.compute import seeded
from xlstm_ts.distribution import join_processes
from xlstm_ts.exceptions import BackendError, CheckpointError, SeriesError

# Three series with gaps, and batches that two processes cannot halve.
Y = np.sin(np.arange(160) * np.pi / 4) + 0.3 * np.random.default_rng(0).standard_normal((3, 160))
Y[0, 20:70] = np.nan
OPTIONS = {
    "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
    "blocks": "ms", "dropout": 0.0, "max_steps": 20, "batch_size": 7, "random_state": 0,
}  # fmt: skip
FITS = {
    "windows": {},
    "carried states": {"stateful": True},
    "no tail": {"validation_fraction": 0.0},
    "mixed precision": {"precision": "bf16-mixed", "stateful": True},
}


def fit(**options: Any) -> XLSTMForecaster:
    return XLSTMForecaster(**OPTIONS | options).fit(Y[..., None])


def stop(record: Any) -> bool:
    return record.step == 8


def outcome(forecaster: XLSTMForecaster) -> dict[str, Any]:
    history = [tuple(record) for record in forecaster.history_]
    forecast = torch.as_tensor(forecaster.predict())
    return {"history": history, "forecast": forecast, "weights": forecaster.model_.state_dict()}


def error(call: Callable[[], Any], kind: type[Exception]) -> str:
    try:
        call()
    except kind as err:
        return str(err)
    raise RuntimeError(f"There was no {kind}.")


def interrupted(rank: int) -> dict[str, Any]:
    """Press Ctrl-C in one process alone, in the middle of its eighth step."""
    update, calls = training._update, itertools.count(1)

    def pressed(*args: Any, **options: Any) -> Any:
        if rank == 1 and next(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return update(*args, **options)

    training._update = pressed
    with warnings.catch_warnings(record=True) as caught:
        forecaster = fit(devices=2)
    training._update = update
    return {**outcome(forecaster), "warnings": [str(one.message) for one in caught]}


def late(rank: int) -> dict[str, Any]:
    """Let the clock of one process alone run out, after the third step."""
    clock, monotonic = itertools.count(step=500), training.time.monotonic
    if rank == 1:
        training.time.monotonic = lambda: next(clock)
    forecaster = fit(devices=2, max_time=1000)
    training.time.monotonic = monotonic
    return outcome(forecaster)


def fail(_: Any) -> None:
    raise LookupError("of a callback")


def drawn(forecaster: XLSTMForecaster) -> dict[str, Any]:
    """Return what a process draws for its windows, and for its dropout."""
    processes = join_processes(forecaster)
    with seeded(None, processes=processes) as generator:
        windows = torch.rand(3, generator=generator).tolist()
    torch.manual_seed(0)
    processes.part_ways()
    return {"windows": windows, "dropout": torch.rand(3).tolist()}


def said(y: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        XLSTMForecaster(**OPTIONS | {"max_steps": 1} | options).fit(y)
    return [f"{one.category.__name__}: {one.message}" for one in caught]


def main(folder: Path) -> None:
    """Fit in one of two processes, and write what came of it."""
    rank, seen = int(os.environ["RANK"]), []
    found: dict[str, Any] = {
        name: outcome(fit(devices="auto", verbose=1, callbacks=seen.append, **options))
        for name, options in FITS.items()
    }
    found["seen"] = len(seen)
    found["stopped"] = outcome(
        fit(devices=2, stateful=True, checkpoint=folder / "of two.pt", callbacks=stop)
    )
    found["resumed"] = outcome(fit(devices=2, stateful=True, checkpoint=folder / "of one.pt"))
    found["interrupted"], found["late"] = interrupted(rank), late(rank)
    found["unseeded"] = outcome(fit(devices=2, random_state=None))
    trained = fit(devices=2).partial_fit(Y[..., None])
    found["trained on"] = outcome(trained)
    found["drawn"] = drawn(trained)
    y = pd.Series(Y[1], pd.date_range("2026-01-01", periods=160, freq="h")).drop("2026-01-03")
    found["said"] = [said(y, devices=2), said(Y[1])]
    found["errors"] = [
        error(lambda: fit(devices=2, callbacks=fail), LookupError),
        error(lambda: fit(devices=2, checkpoint=folder / "text.pt"), CheckpointError),
        error(lambda: XLSTMForecaster(**OPTIONS, devices=2).fit(Y[rank]), SeriesError),
        error(lambda: fit(devices=2, batch_size=1), ValueError),
        error(lambda: fit(devices=2, device="cpu:0"), ValueError),
        error(lambda: fit(devices=2, num_nodes=2), ValueError),
    ]
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which two processes have left what they found."""
    if importlib.util.find_spec("lightning_fabric") is None:
        pytest.skip("no lightning-fabric: pip install 'xlstm-ts[fabric]'")
    # What runs tests side by side shares one run of the two.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "processes"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            run_two(folder)
    return folder


def run_two(folder: Path) -> None:
    folder.mkdir()
    (folder / "text.pt").write_text("no checkpoint")
    fit(stateful=True, checkpoint=folder / "of one.pt", callbacks=stop)
    root = Path(__file__).parents[1]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--log-dir", str(folder / "log"), "--redirects", "3", __file__, str(folder)]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    logs = [path.read_text() for path in (folder / "log").rglob("stderr.log")]
    assert done.returncode == 0, "\n".join([done.stderr, *logs])


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_close(one: dict[str, Any], other: dict[str, Any], *, tolerance: float = 1e-5) -> None:
    for name in ("history", "forecast"):
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance)


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert_close(one, other, tolerance=0)
    for name, weight in one["weights"].items():
        assert torch.equal(other["weights"][name], weight)


@pytest.mark.parametrize("name", FITS)
def test_losses_and_weights_are_those_of_one_process(
    name: str, found: list[dict[str, Any]]
) -> None:
    tolerance = 1e-3 if name == "mixed precision" else 1e-5
    expected = outcome(fit(**FITS[name]))
    assert len(expected["history"]) == 10
    assert_close(expected, found[0][name], tolerance=tolerance)
    assert_equal(found[0][name], found[1][name])


def test_a_checkpoint_goes_from_one_number_of_processes_to_another(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    whole = outcome(fit(stateful=True))
    assert [each["stopped"]["history"][-1][0] for each in found] == [8, 8]
    for each in found:
        assert_close(whole, each["resumed"])
    assert not (folder / "of one.pt").exists()
    seen: list[Any] = []
    resumed = fit(stateful=True, checkpoint=folder / "of two.pt", callbacks=seen.append)
    assert seen[0].step == 10
    assert_close(whole, outcome(resumed))


def test_what_one_process_decides_all_do(found: list[dict[str, Any]]) -> None:
    for name, step in (("interrupted", 8), ("late", 3)):
        assert [each[name]["history"][-1][0] for each in found] == [step, step]
        assert_equal(found[0][name], found[1][name])


def test_what_follows_from_no_seed_is_the_same_in_all(found: list[dict[str, Any]]) -> None:
    for name in ("unseeded", "trained on"):
        assert_equal(found[0][name], found[1][name])
    assert len(found[0]["trained on"]["history"]) == 11


def test_processes_draw_the_same_windows_and_drop_other_activations(
    found: list[dict[str, Any]],
) -> None:
    one, other = (each["drawn"] for each in found)
    assert one["windows"] == other["windows"]
    torch.manual_seed(0)
    assert one["dropout"] == torch.rand(3).tolist()
    assert one["dropout"] != other["dropout"]


def test_the_first_process_alone_speaks(folder: Path, found: list[dict[str, Any]]) -> None:
    assert [each["seen"] for each in found] == [40, 0]
    assert "after step 8 of 20" in found[0]["interrupted"]["warnings"][0]
    assert found[1]["interrupted"]["warnings"] == []
    assert found[0]["said"][0][0].startswith("SeriesWarning")
    assert found[1]["said"] == [[], []]
    (log,) = (path.parent for path in (folder / "log").rglob("0"))
    assert "20/20" in (log / "0" / "stderr.log").read_text()
    for name in ("stdout.log", "stderr.log"):
        assert (log / "1" / name).read_text() == ""


def test_errors_are_raised_in_all_processes(found: list[dict[str, Any]]) -> None:
    for each in found:
        callback, checkpoint, series, batch, device, nodes = each["errors"]
        assert callback == "of a callback"
        assert "text.pt is no checkpoint" in checkpoint
        assert "`y` is not the same in all processes" in series
        assert batch == "`batch_size` must be at least 2, got 1."
        assert "names one device, 'cpu:0', for 2; give 'cpu'" in device
        assert "asks for 4 processes, and there are 2; start them by" in nodes


def test_default_parameters_train_alone_with_a_word(found: list[dict[str, Any]]) -> None:
    _, (warning,) = found[0]["said"]
    assert warning.startswith("BackendWarning: torchrun started 2 processes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 2}, "and there is 1; .* `torchrun --nnodes 1 --nproc-per-node 2 script.py`"),
        ({"num_nodes": 3}, "asks for 3 processes"),
        ({"devices": 0}, "`devices` must be at least 1, got 0"),
        ({"devices": "all"}, "`devices` must be an integer or 'auto', got 'all'"),
        ({"num_nodes": 0}, "`num_nodes` must be at least 1"),
        ({"strategy": "fsdp"}, "`strategy` must be 'auto' or 'ddp', got 'fsdp'"),
        (
            {"precision": "16-mixed"},
            "`precision` must be '32-true' or 'bf16-mixed', got '16-mi",
        ),
    ],
)
def test_parameters_are_refused_with_the_cure(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(BackendError, match=r"pip install 'xlstm-ts\[fabric\]'"):
        fit(devices="auto")


def test_one_process_needs_no_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert fit(devices="auto").history_ == fit().history_


def test_products_are_rounded_in_training_and_not_where_weights_are_judged() -> None:
    # Of a model that stays as it is.
    plain, mixed = (
        np.array(fit(precision=name, learning_rate=1e-12).history_)
        for name in ("32-true", "bf16-mixed")
    )
    assert (mixed[:, 1] != plain[:, 1]).all()
    np.testing.assert_allclose(mixed[:, 1], plain[:, 1], rtol=0.02)
    np.testing.assert_allclose(mixed[:, 2], plain[:, 2], rtol=1e-6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
