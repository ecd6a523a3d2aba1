"""A saved forecaster comes back the same, or is refused before anything is written."""

import json
from pathlib import Path

import dateutil.tz
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import XLSTMForecaster, persistence
from xlstm_ts.exceptions import SeriesError


def test_numpy_parameters_are_saved(tmp_path: Path) -> None:
    integers = {
        name: np.int32(value)
        for name, value in {
            "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
            "max_steps": 3, "batch_size": 8, "patience": 2,
        }.items()
    }  # fmt: skip
    forecaster = small(
        **integers, quantiles=np.array([0.2, 0.5]), learning_rate=np.float32(1e-3), device="cpu"
    ).fit(ARRAY)
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    np.testing.assert_array_equal(loaded.predict(), forecaster.predict())


def test_callbacks_are_left_out_and_a_checkpoint_is_a_path(tmp_path: Path) -> None:
    forecaster = small(checkpoint=tmp_path / "fit.pt", max_time=np.float64(60))
    forecaster.set_params(callbacks=[lambda record: None]).fit(ARRAY).save(tmp_path / "saved.npz")
    params = XLSTMForecaster.load(tmp_path / "saved.npz").get_params()
    assert params["callbacks"] is None
    assert params["checkpoint"] == str(tmp_path / "fit.pt")
    assert params["max_time"] == 60


def test_names_come_back_from_a_file(tmp_path: Path) -> None:
    columns = pd.Index([np.int64(3), "b"], name="sensor")
    y = pd.DataFrame(np.stack([ARRAY, ARRAY], 1), HOURLY, columns)
    forecaster = small().fit(y)
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    pd.testing.assert_frame_equal(loaded.predict(), forecaster.predict())
    pd.testing.assert_frame_equal(loaded.predict_quantiles(), forecaster.predict_quantiles())
    for one in (loaded, forecaster):
        one.bounds = one.predict_interval(coverage=0.5)
    pd.testing.assert_frame_equal(loaded.bounds, forecaster.bounds, rtol=1e-5)


TWO = np.stack([ARRAY, ARRAY], 1)
HOLIDAYS = pd.offsets.CustomBusinessDay(holidays=["2030-01-01"])
UNSAVED = {
    "number": (pd.DataFrame(TWO, columns=["a", 1.5]), r"label 1\.5 .* only text and integers"),
    "truth": (pd.DataFrame(TWO, columns=["a", True]), "label True"),
    "time": (pd.DataFrame(TWO, columns=["a", HOURLY[0]]), "label Timestamp"),
    "levels": (
        pd.DataFrame(TWO, columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
        r"label \('a', 1\)",
    ),
    "series": (pd.Series(ARRAY, name=1.5), r"label 1\.5"),
    "name of the index": (pd.Series(ARRAY, HOURLY.rename(("a", 1))), r"label \('a', 1\)"),
    "zone": (
        pd.Series(ARRAY, HOURLY.tz_convert(dateutil.tz.gettz("Europe/Rome"))),
        r"index .* cannot be saved.*tz_convert",
    ),
    "holidays": (
        pd.Series(ARRAY, pd.date_range("2024", periods=160, freq=HOLIDAYS)),
        "index .* with a step of C",
    ),
}


@pytest.mark.parametrize("kind", UNSAVED)
def test_what_would_come_back_otherwise_is_not_saved(kind: str, tmp_path: Path) -> None:
    y, message = UNSAVED[kind]
    forecaster = small().fit(y)
    with pytest.raises(SeriesError, match=message):
        forecaster.save(tmp_path / "saved.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Rome", "+02:00", "-03:30"])
@pytest.mark.parametrize("freq", ["h", "15min", "D", "W-MON", "MS", "B"])
def test_times_come_back_from_a_file(zone: str | None, freq: str, tmp_path: Path) -> None:
    y = pd.Series(ARRAY, pd.date_range("2024-03-29", periods=160, freq=freq, tz=zone))
    forecaster = small(max_steps=1).fit(y)
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    pd.testing.assert_series_equal(loaded.predict(), forecaster.predict())


def test_files_are_whole_and_foreign_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster, path = small().fit(ARRAY), tmp_path / "saved.npz"
    forecaster.save(path)
    whole = path.read_bytes()
    monkeypatch.setattr(persistence.np, "savez", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forecaster.save(path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    for damaged in (whole[:100], b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(SeriesError, match="not a saved forecaster"):
            XLSTMForecaster.load(path)
    monkeypatch.undo()
    header = json.dumps({"format": persistence.FORMAT, "version": 99})
    np.savez(path, header=np.array(header))
    with pytest.raises(SeriesError, match="format version 99, this library reads 3"):
        XLSTMForecaster.load(path)
