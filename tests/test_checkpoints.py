"""A fit that was stopped goes on from its checkpoint as if it never had been, or not at all."""

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ARRAY, small
from xlstm_ts import XLSTMForecaster, training
from xlstm_ts.checkpoints import fingerprint
from xlstm_ts.exceptions import CheckpointError, InterruptedWarning
from xlstm_ts.runs import Record

# A look every second step; dropout and both kinds of cells, all of which must go on.
OPTIONS = {"max_steps": 20, "dropout": 0.3, "blocks": "ms", "batch_size": 8}


def look_at(step: int, result: object) -> object:
    """Return a callback that returns or raises `result` at one look."""

    def callback(record: Record) -> object:
        if record.step == step and isinstance(result, BaseException):
            raise result
        return record.step == step and result

    return callback


def stop(way: str, path: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    """Stop a fit after seven or eight of its steps."""
    forecaster = small(**OPTIONS, **options, checkpoint=path)
    if way == "callback":
        forecaster.set_params(callbacks=look_at(8, True)).fit(ARRAY)
    elif way == "error":
        with pytest.raises(LookupError):
            forecaster.set_params(callbacks=look_at(8, LookupError())).fit(ARRAY)
    elif way == "time":
        clock = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(training.time, "monotonic", lambda: next(clock))
            forecaster.set_params(max_time=6.5).fit(ARRAY)
        assert forecaster.history_[-1].step == 7  # between two looks
    else:
        interrupt(forecaster, path, monkeypatch)


def interrupt(forecaster: XLSTMForecaster, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the eighth step after it has moved the weights."""
    update, calls = training._update, itertools.count(1)

    def interrupted(*args: object, **options: object) -> torch.Tensor:
        loss = update(*args, **options)
        if next(calls) == 8:
            raise KeyboardInterrupt
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(training, "_update", interrupted)
        with pytest.warns(InterruptedWarning, match=f"step 7 of 20.* in {path}") as caught:
            forecaster.fit(ARRAY)
    assert caught[0].filename == __file__
    assert forecaster.history_[-1].step == 7
    assert np.isfinite(forecaster.predict()).all()


def same(one: XLSTMForecaster, other: XLSTMForecaster) -> bool:
    """Say whether two fits have the same weights and the same history, to the bit."""
    others = other.model_.state_dict()
    weights = one.model_.state_dict().items()
    history = np.array_equal(one.history_, other.history_, equal_nan=True)
    return history and all(torch.equal(weight, others[name]) for name, weight in weights)


@pytest.mark.parametrize("options", [{}, {"validation_fraction": 0.0}, {"stateful": True}], ids=str)
@pytest.mark.parametrize("way", ["callback", "error", "time", "interrupt"])
def test_goes_on_to_the_bit(
    way: str, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "fit.pt", []
    whole = small(**OPTIONS, **options).fit(ARRAY)
    stop(way, path, monkeypatch, **options)
    assert list(tmp_path.iterdir()) == [path]
    resumed = small(**OPTIONS, **options, checkpoint=str(path), callbacks=[seen.append]).fit(ARRAY)
    assert same(whole, resumed)
    assert seen[0].step == (10 if way in ("callback", "error") else 8)
    assert not path.exists()


def test_goes_on_from_slice_to_slice_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice shorter than the steps between two looks is not lost."""
    path, fits = tmp_path / "fit.pt", 0
    clock = itertools.count()
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    while not fits or path.exists():
        sliced = small(**OPTIONS, checkpoint=path, max_time=0.5).fit(ARRAY)
        fits += 1
    assert fits == 20
    assert same(small(**OPTIONS).fit(ARRAY), sliced)


def test_a_fit_stopped_by_patience_is_complete(tmp_path: Path) -> None:
    y = ARRAY.copy()
    y[-16:] *= -1  # what is learned before the tail is soon wrong in it
    options = {"max_steps": 200, "learning_rate": 3e-2, "patience": 2, "dropout": 0.0}
    whole, path = small(**options).fit(y), tmp_path / "fit.pt"
    last = whole.history_[-1].step
    assert last < 200
    with pytest.raises(LookupError):
        small(**options, checkpoint=path, callbacks=look_at(last, LookupError())).fit(y)
    resumed = small(**options, checkpoint=path).fit(y)
    assert same(whole, resumed)
    assert not path.exists()


@pytest.mark.parametrize("seed", [None, np.random.RandomState(0), np.int64(3)])
def test_goes_on_with_numpy_parameters_and_any_random_state(
    seed: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.pt"
    options = {
        "learning_rate": np.float32(1e-3), "weight_decay": np.float64(0.1), "patience": np.int32(9),
        "quantiles": np.array([0.2, 0.5]), "horizon": np.int32(4), "random_state": seed,
    }  # fmt: skip
    stop("callback", path, monkeypatch, **options)
    resumed = small(**OPTIONS | {"max_steps": np.int64(20)}, **options, checkpoint=path)
    assert [record.step for record in resumed.fit(ARRAY).history_] == list(range(2, 21, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 12}, "another fit: `d_model` was 8 and is 12. Delete"),
        ({"max_steps": 10}, "`max_steps` was 20 and is 10"),
        ({"random_state": 1}, "`random_state` was 0 and is 1"),
        ({"random_state": None}, "`random_state` was 0 and is null"),
        ({"validation_fraction": 0.2, "patience": None}, "`patience` .* `validation_fraction` was"),
        ({"quantiles": (0.5,)}, r"`quantiles` was \[0\.1, 0\.5, 0\.9\] and is \[0\.5\]"),
    ],
)
def test_other_parameters_are_named(
    changes: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.pt"
    stop("callback", path, monkeypatch)
    kept = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        small(**{**OPTIONS, **changes}, checkpoint=path).fit(ARRAY)
    assert path.read_bytes() == kept


# In units of mean and spread the second is the same series.
@pytest.mark.parametrize("y", [ARRAY[:-1], 2 * ARRAY, np.stack([ARRAY, ARRAY], 1)])
def test_other_readings_are_refused(
    y: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop("callback", tmp_path / "fit.pt", monkeypatch)
    with pytest.raises(CheckpointError, match="`y` has other readings"):
        small(**OPTIONS, checkpoint=tmp_path / "fit.pt").fit(y)


def test_missing_readings_have_one_fingerprint() -> None:
    one, other = np.array([[1.0, np.nan]]), np.array([[1.0, -np.nan]])
    assert one.tobytes() != other.tobytes()
    assert fingerprint({}, readings=one) == fingerprint({}, readings=other)
    assert fingerprint({}, readings=one) != fingerprint({}, readings=one.T)


def test_damaged_and_foreign_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.pt"
    stop("callback", path, monkeypatch)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = archive.read(max(archive.infolist(), key=lambda entry: entry.file_size))
    middle = whole.index(weights) + len(weights) // 2  # what lies between entries is padding
    flipped = whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
    small().fit(ARRAY).save(tmp_path / "saved.npz")
    saved = (tmp_path / "saved.npz").read_bytes()
    others = []
    for content in ({"format": "of another"}, [1.0], "text", torch.ones(3)):
        torch.save(content, tmp_path / "other.pt")
        others.append((tmp_path / "other.pt").read_bytes())
    for damaged in (whole[:-100], flipped, b"text", b"", saved, *others):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no checkpoint of a fit, or is damaged"):
            small(**OPTIONS, checkpoint=path).fit(ARRAY)
        assert path.read_bytes() == damaged
    torch.save({"format": "xlstm-ts checkpoint", "version": 99}, path)
    with pytest.raises(CheckpointError, match="format version 99"):
        small(**OPTIONS, checkpoint=path).fit(ARRAY)


def test_a_missing_folder_is_named_before_the_first_step(tmp_path: Path) -> None:
    seen = []
    forecaster = small(checkpoint=tmp_path / "nowhere" / "fit.pt", callbacks=seen.append)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        forecaster.fit(ARRAY)
    assert seen == []
