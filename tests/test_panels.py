"""One model for many series: of any length and level, seen in training or not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import small
from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel


def wave(length: int, *, seed: int = 0, level: float = 0, size: float = 1) -> pd.Series:
    noise = np.random.default_rng(seed).standard_normal(length)
    index = pd.date_range("2024", periods=length, freq="h", name="time")
    return pd.Series(level + size * (np.sin(np.arange(length) * np.pi / 4) + 0.1 * noise), index)


PANEL = pd.concat(
    {"a": wave(160), "b": wave(90, seed=1, level=5000, size=100), "c": wave(14, seed=2)},
    names=["machine"],
).rename("load")


@pytest.fixture(scope="module")
def fitted() -> XLSTMForecaster:
    return small(max_steps=150, learning_rate=1e-2).fit(PANEL)


def test_forecasts_continue_each_series(fitted: XLSTMForecaster) -> None:
    forecast = fitted.predict()
    assert forecast.index.names == ["machine", "time"]
    assert forecast.name == "load"
    for key, part in PANEL.groupby(level="machine"):
        times = forecast.loc[key].index
        assert times[0] == part.droplevel("machine").index[-1] + pd.Timedelta("1h")
        assert len(times) == 4


@pytest.mark.parametrize(("level", "size"), [(0, 1), (1e4, 1), (-3e6, 1e5), (1e-9, 1e-9)])
def test_an_unseen_series_is_forecast_at_its_own_level(
    fitted: XLSTMForecaster, level: float, size: float
) -> None:
    """A model in the units of its own series would be at the floor of its scale here."""
    past, future = np.split(wave(100, seed=9, level=level, size=size).to_numpy(), [96])
    error = np.abs(fitted.predict(past) - future).mean() / size
    assert error < 0.4  # of a wave of height 1, with noise of 0.1


def test_scaling_a_series_scales_its_forecast(fitted: XLSTMForecaster) -> None:
    past = wave(60, seed=3).to_numpy()
    np.testing.assert_allclose(
        fitted.predict(7 + 1000 * past), 7 + 1000 * fitted.predict(past), rtol=1e-4
    )


def test_a_series_forecasts_the_same_alone_and_among_others(fitted: XLSTMForecaster) -> None:
    alone = fitted.predict(PANEL.loc["b"])
    np.testing.assert_array_equal(alone, fitted.predict(PANEL).loc["b"])
    np.testing.assert_array_equal(alone, fitted.predict().loc["b"])


def test_score_is_the_mean_over_series(fitted: XLSTMForecaster) -> None:
    each = [fitted.score(PANEL.loc[[key]]) for key in ("a", "b")]
    assert fitted.score(PANEL) == pytest.approx(np.mean(each))  # the third is too short


def test_quantiles_of_a_panel(fitted: XLSTMForecaster) -> None:
    quantiles = fitted.predict_quantiles()
    assert list(quantiles.columns) == [0.1, 0.5, 0.9]
    assert (quantiles.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    np.testing.assert_array_equal(quantiles[0.5], fitted.predict())


@pytest.mark.parametrize("kind", ["series", "frame", "long", "levels", "array"])
def test_a_panel_is_saved_whole(kind: str, tmp_path: Path) -> None:
    y = {
        "series": PANEL,
        "frame": pd.DataFrame({"u": PANEL, "v": 2 * PANEL}),
        "long": PANEL.rename("y").rename_axis(["unique_id", "ds"]).reset_index(),
        "levels": pd.concat({7: PANEL}, names=["hall"]),
        "array": np.stack([PANEL.loc["b"].to_numpy()[:, None]] * 2),
    }[kind]
    forecaster = small().fit(y)
    forecaster.save(tmp_path / "panel.npz")
    loaded = XLSTMForecaster.load(tmp_path / "panel.npz")
    expected, got = forecaster.predict_quantiles(), loaded.predict_quantiles()
    if kind == "array":
        np.testing.assert_array_equal(got, expected)
    else:
        pd.testing.assert_frame_equal(got, expected, check_freq=False)


def test_a_graph_has_the_units_of_one_series(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`series` must be one of 'a', 'b', 'c', got None"):
        export_onnx(fitted, tmp_path / "model.onnx")
    export_onnx(fitted, tmp_path / "model.onnx", series="b")
    stream = StreamModel(tmp_path / "model.onnx").create_stream()
    for reading in PANEL.loc["b"].iloc[-16:]:
        output = stream.step(reading)
    np.testing.assert_allclose(output.forecast[:, 0], fitted.predict().loc["b"], rtol=1e-3)


def test_series_too_short_to_train_on_are_counted() -> None:
    y = pd.concat({"a": wave(160), "b": wave(5)})
    with pytest.warns(SeriesWarning, match="1 of 2 series have too few readings"):
        forecaster = small().fit(y)
    assert len(forecaster.predict().loc["b"]) == 4


def test_panel_without_one_whole_window_is_refused() -> None:
    with pytest.raises(SeriesError, match="too short: 14 readings"):
        small().fit(pd.concat({"a": wave(14), "b": wave(9)}))


def test_a_series_without_a_reading_is_not_guessed_at(fitted: XLSTMForecaster) -> None:
    silent = PANEL.copy()
    silent[silent.index.get_level_values(0) == "b"] = np.where(
        np.arange(90) < 74, PANEL.loc["b"], np.nan
    )
    with pytest.warns(SeriesWarning, match="context of 16: its forecast is NaN"):
        forecast = fitted.predict(silent)
    assert forecast.loc["b"].isna().all()
    assert forecast.loc["a"].notna().all()


def test_a_constant_series_does_not_stop_the_score(fitted: XLSTMForecaster) -> None:
    flat = pd.concat({"z": 0 * wave(160)}, names=["machine"]).rename("load")
    assert fitted.score(pd.concat([PANEL, flat])) == pytest.approx(fitted.score(PANEL))
    forecasts = [fitted.predict_quantiles(np.full(30, level)) for level in (1.0, 1e-6)]
    np.testing.assert_allclose(forecasts[1], 1e-6 * forecasts[0], rtol=1e-4)
