"""A fit on files is the one in memory, as long as all fits into the pool; else it is near."""

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import BackendError, CheckpointError, SeriesError
from xlstm_ts.parquet import ParquetPanel, fitting, predict_parquet, rows

pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'xlstm-ts[parquet]'")

OPTIONS = {
    "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
    "max_steps": 12, "batch_size": 8, "random_state": 0,
}  # fmt: skip
# Least: eight blocks of two windows of 20 readings.
SMALL = 320


def panel(*, count: int = 6, length: int = 120) -> pd.DataFrame:
    """Return series of growing length and level, one with times left out, one with nulls."""
    random = np.random.default_rng(0)
    parts = []
    for number in range(count):
        size = length + 10 * number
        wave = np.sin(np.arange(size) * np.pi / 4) + 0.3 * random.standard_normal(size)
        times = pd.date_range("2026-01-01", periods=size, freq="h")
        key = f"s{number:03}"
        parts.append(pd.DataFrame({"unique_id": key, "ds": times, "y": 20 + (number + 1) * wave}))
    parts[1] = parts[1].drop(index=range(30, 50))
    parts[2].loc[60:70, "y"] = np.nan
    return pd.concat(parts, ignore_index=True)


FRAME = panel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three files: the third goes on with series of the second."""
    late = (FRAME["ds"] >= "2026-01-04") & (FRAME["unique_id"] > "s002")
    pieces = [FRAME[FRAME["unique_id"] <= "s002"], FRAME[~late], FRAME[late]]
    pieces[1] = pieces[1][pieces[1]["unique_id"] > "s002"]
    for name, piece in zip(("2026-a", "2026-b", "2026-c"), pieces, strict=True):
        piece.to_parquet(tmp_path / f"{name}.parquet", index=False, row_group_size=37)
    return tmp_path


def fit(y: Any, **options: Any) -> XLSTMForecaster:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* leave.* out .* stamps")
        return XLSTMForecaster(**OPTIONS | options).fit(y)


def assert_equal(one: XLSTMForecaster, other: XLSTMForecaster) -> None:
    assert one.history_ == other.history_
    for name, weight in one.model_.state_dict().items():
        assert torch.equal(other.model_.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("options", "pool_rows"),
    [
        ({}, 2**21),
        ({}, 1000),  # room for all, but more than an eighth is of one series
        ({"calendar": ("hour", "dayofweek"), "channel_embedding": True}, 2**21),
        ({"target_transform": "log", "validation_fraction": 0.0}, 2**21),
        ({"quantiles": (0.5,), "validation_fraction": 0.3, "context_length": "auto"}, 2**21),
    ],
)
def test_what_fits_into_the_pool_gives_the_weights_of_memory(
    folder: Path, options: dict[str, Any], pool_rows: int
) -> None:
    held = fit(FRAME, **options)
    read = fit(ParquetPanel(folder, pool_rows=pool_rows), **options)
    assert_equal(held, read)
    for name in ("season_length_", "context_length_", "channels_", "covariates_", "pooled_"):
        assert getattr(held, name) == getattr(read, name)
    np.testing.assert_allclose(
        read.calibration_.errors, held.calibration_.errors, rtol=1e-4, atol=1e-5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.testing.assert_frame_equal(read.predict(FRAME), held.predict(FRAME))


def test_a_small_pool_trains_nearly_as_well_and_repeats(folder: Path) -> None:
    options = {"max_steps": 80, "patience": None}
    held = fit(FRAME, **options)
    read, again = (fit(ParquetPanel(folder, pool_rows=SMALL), **options) for _ in range(2))
    assert_equal(read, again)
    assert read.history_ != held.history_
    losses = [one.history_[-1].validation_loss for one in (held, read)]
    # Half of what training brought, at most.
    assert abs(losses[1] - losses[0]) < 0.5 * (held.history_[0].validation_loss - losses[0])


def test_no_more_is_read_at_a_time_than_the_pool_allows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    read = fitting.read_places

    def watched(index: Any, places: Any) -> Any:
        sizes.append(sum(place.stop - place.start for place in places))
        return read(index, places)

    monkeypatch.setattr(rows, "read_places", watched)
    monkeypatch.setattr(fitting, "read_places", watched)
    fit(ParquetPanel(folder, pool_rows=SMALL), validation_fraction=0.0)
    # The longest series, once, tells what all have in common.
    assert sizes.pop(0) == 170
    assert max(sizes) <= SMALL // 8


@pytest.mark.parametrize("pool_rows", [SMALL, 2**21])
def test_a_checkpoint_goes_on_to_the_bit(folder: Path, pool_rows: int) -> None:
    y = ParquetPanel(folder, pool_rows=pool_rows)
    options = {"max_steps": 20, "checkpoint": folder / "fit.pt", "patience": None}
    whole = fit(y, **options)
    stopped = fit(y, **options, callbacks=lambda record: record.step == 10)
    assert stopped.history_[-1].step == 10
    assert_equal(fit(y, **options), whole)
    fit(y, **options, callbacks=lambda record: record.step == 10)
    path = folder / "2026-b.parquet"
    changed = pd.read_parquet(path)
    changed.loc[3, "y"] += 1
    changed.to_parquet(path, index=False)
    with pytest.raises(CheckpointError, match="`y` has other readings"):
        fit(y, **options)


@pytest.mark.parametrize("pool_rows", [SMALL, 2**21])
def test_forecasts_go_from_file_to_file(folder: Path, pool_rows: int) -> None:
    y = ParquetPanel(folder, pool_rows=pool_rows)
    forecaster = fit(y, calendar="hour")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict_parquet(forecaster, y, folder / "forecasts")
        expected = forecaster.predict_quantiles(FRAME)
    found = pd.read_parquet(folder / "forecasts")
    assert list(found.columns) == ["unique_id", "ds", "0.1", "0.5", "0.9"]
    assert (found.iloc[:, :2].to_numpy() == expected.iloc[:, :2].to_numpy()).all()
    np.testing.assert_allclose(found.iloc[:, 2:], expected.iloc[:, 2:], rtol=1e-5, atol=1e-5)


def test_no_context_is_kept_and_new_ones_can_be_given(folder: Path) -> None:
    fit(ParquetPanel(folder)).save(folder / "saved")
    for forecaster in (fit(ParquetPanel(folder)), XLSTMForecaster.load(folder / "saved")):
        with pytest.raises(SeriesError, match="no context is kept; give one as `y`"):
            forecaster.predict()
        new = FRAME[FRAME["unique_id"] == "s005"]
        expected = forecaster.predict(new)
        pd.testing.assert_frame_equal(forecaster.update(new).predict(), expected)
        forecaster.save(folder / "again")
        again = XLSTMForecaster.load(folder / "again").predict()
        pd.testing.assert_frame_equal(again, expected)


def test_a_long_series_has_the_units_of_its_parts(folder: Path) -> None:
    # Parts of 40 readings of series of 120 and more.
    found = {}
    for pool_rows in (SMALL, 1000, 2**21):
        reader = fitting._Reader.find_units

        def kept(self: Any, series: range, pool_rows: int = pool_rows) -> None:
            reader(self, series)  # noqa: B023
            found[pool_rows] = (self.center, self.spread)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting._Reader, "find_units", kept)
            fit(ParquetPanel(folder, pool_rows=pool_rows), max_steps=1)
    np.testing.assert_allclose(found[SMALL], found[2**21], rtol=1e-12)
    assert not np.array_equal(found[SMALL], found[2**21])
    np.testing.assert_array_equal(found[1000], found[2**21])


def test_calibration_is_by_about_a_thousand_forecasts() -> None:
    for count, length in ((6, 100), (600, 400), (7000, 40)):
        index: Any = SimpleNamespace(lengths=np.full(count, length))
        n_train = [length - 10, 0] * (count // 2)
        places = fitting._origins(index, n_train, 16, 4)
        starts = [place.start for place in places]
        origins = (count // 2) * 7
        assert min(origins, 500) <= len(places) <= 2000
        assert {place.series % 2 for place in places} == {0}
        assert min(starts) == length - 10 - 16
        assert max(place.stop for place in places) <= length


@pytest.mark.parametrize("method", ["predict", "predict_quantiles", "score", "update"])
def test_files_are_for_the_fit_alone(folder: Path, method: str) -> None:
    forecaster = XLSTMForecaster(**OPTIONS).fit(np.sin(np.arange(100.0)))
    with pytest.raises(SeriesError, match="in Parquet files, which `fit` alone takes"):
        getattr(forecaster, method)(ParquetPanel(folder))


def test_options_that_files_cannot_have_are_refused(folder: Path) -> None:
    y = ParquetPanel(folder)
    with pytest.raises(ValueError, match="`stateful` goes along whole series"):
        fit(y, stateful=True)
    with pytest.raises(SeriesError, match="`X` and `static` do not go with Parquet files"):
        XLSTMForecaster(**OPTIONS).fit(y, X=FRAME.drop(columns="y"))
    with pytest.raises(ValueError, match="`pool_rows` must be at least 320, got 319"):
        fit(replace(y, pool_rows=SMALL - 1))
    with pytest.raises(ValueError, match="`pool_rows` must be at least 320, got 4"):
        fit(replace(y, pool_rows=4))
    with pytest.raises(ValueError, match="`pool_rows` must be at least 1, got 0"):
        ParquetPanel(folder, pool_rows=0)
    with pytest.raises(ValueError, match="`known_future` names 'price', which is no column of `X`"):
        fit(y, known_future=["price"])
    with pytest.raises(SeriesError, match="is too short"):
        fit(y, context_length=400)


def test_forecasts_need_files_of_the_fit(folder: Path) -> None:
    y = ParquetPanel(folder)
    single = XLSTMForecaster(**OPTIONS).fit(np.sin(np.arange(100.0)))
    with pytest.raises(SeriesError, match="was fitted on a single series"):
        predict_parquet(single, y, folder / "out")
    slow = FRAME[FRAME["unique_id"] != "s001"]
    slow = slow[slow["ds"].dt.hour % 2 == 0]
    slow.to_parquet(folder / "slow", index=False)
    with pytest.raises(SeriesError, match="a step of 2h, the model was trained on one of h"):
        predict_parquet(fit(y, max_steps=1), ParquetPanel(folder / "slow"), folder / "out")
    assert not (folder / "out").exists()


def test_forecasts_take_the_step_of_the_fit_by_any_name(folder: Path) -> None:
    hourly, minutes = ParquetPanel(folder), ParquetPanel(folder, freq="60min")
    for one, other in ((hourly, minutes), (minutes, hourly)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict_parquet(fit(one, max_steps=1), other, folder / "out")
        assert len(pd.read_parquet(folder / "out")) == 6 * 4


def test_forecasts_by_the_calendar_need_the_zone_of_the_fit(folder: Path) -> None:
    zoned = FRAME[FRAME["unique_id"] == "s000"]
    zoned = zoned.assign(ds=zoned["ds"].dt.tz_localize("UTC"))
    zoned.to_parquet(folder / "zoned", index=False)
    y = ParquetPanel(folder / "zoned")
    with pytest.raises(
        SeriesError, match="the time zone UTC, the calendar of the fit goes by None"
    ):
        predict_parquet(fit(ParquetPanel(folder), calendar="hour", max_steps=1), y, folder / "out")
    assert not (folder / "out").exists()
    predict_parquet(fit(ParquetPanel(folder), max_steps=1), y, folder / "out")


def test_a_folder_that_is_not_there_is_told_before_anything_is_read(folder: Path) -> None:
    forecaster = fit(ParquetPanel(folder), max_steps=1)
    (folder / "2026-b.parquet").write_text("damaged")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*/no to write out to"):
        predict_parquet(forecaster, ParquetPanel(folder), folder / "no" / "out")


def test_forecasts_need_a_fit(folder: Path) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        predict_parquet(XLSTMForecaster(**OPTIONS), ParquetPanel(folder), folder / "out")


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(BackendError, match=r"pip install 'xlstm-ts\[parquet\]'"):
        fit(ParquetPanel(folder))


def test_series_without_a_reading_at_the_end_are_forecast_as_null(folder: Path) -> None:
    forecaster = fit(ParquetPanel(folder), max_steps=1)
    y = FRAME[FRAME["unique_id"] == "s000"].copy()
    y.loc[y.index[-20:], "y"] = np.nan
    y.to_parquet(folder / "silent", index=False)
    with pytest.warns(UserWarning, match="1 of 1 series have no reading in their context of 16"):
        predict_parquet(forecaster, ParquetPanel(folder / "silent"), folder / "out")
    assert pd.read_parquet(folder / "out").iloc[:, 2:].isna().all(axis=None)
