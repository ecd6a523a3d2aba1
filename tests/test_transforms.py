"""A model of the logarithm: exactly that of the logarithms, in every path from end to end."""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from tests.conftest import ARRAY, CONFIGS, small
from xlstm_ts import XLSTMForecaster, backtest
from xlstm_ts.calibration import Calibration, OnlineIntervals
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.export.parity import worst_errors
from xlstm_ts.model import XLSTM
from xlstm_ts.streaming import StreamModel

FUNCTIONS = {"log": (np.log, np.exp), "log1p": (np.log1p, np.expm1)}
both = pytest.mark.parametrize("transform", FUNCTIONS)


def sales(length: int, *, level: float, seed: int = 0) -> pd.Series:
    """Return a season in percent of a level that wanders by percent."""
    noise = np.random.default_rng(seed).standard_normal(length)
    logs = 0.5 * np.sin(np.arange(length) * np.pi / 4) + 0.1 * noise + 0.01 * noise.cumsum()
    index = pd.date_range("2024", periods=length, freq="h", name="time")
    return pd.Series(level * np.exp(logs), index, name="sold")


ONE = sales(160, level=30)
PANEL = pd.concat({"a": sales(160, level=3), "b": sales(120, level=4000, seed=1)}, names=["shop"])


def make_pair(transform: str) -> tuple[XLSTM, XLSTM]:
    """Return a model of the logarithm and the same of numbers."""
    torch.manual_seed(0)
    shape = {"n_channels": 3, "horizon": 5, "d_model": 8, "n_heads": 2, "scaling_span": 8}
    shape |= CONFIGS["mixed"]
    numbers = XLSTM(XLSTMConfig(**shape)).double().eval()
    numbers.set_units(np.array([[2.0, 0.0, -1.0]]), np.array([[0.5, 1.0, 2.0]]))
    logs = XLSTM(XLSTMConfig(**shape, target_transform=transform)).double().eval()
    logs.load_state_dict(numbers.state_dict())
    return logs, numbers


def positive_readings(transform: str, length: int) -> np.ndarray:
    """Return readings `(length, 3)`, some missing, some zero or below."""
    rng = np.random.default_rng(3)
    readings = FUNCTIONS[transform][1]([2, 0, -1] + [0.5, 1, 2] * rng.standard_normal((length, 3)))
    readings[rng.random(readings.shape) < 0.1] = np.nan
    return readings


@both
@torch.no_grad()
def test_forecasts_are_those_of_the_logarithms(transform: str) -> None:
    logs, numbers = make_pair(transform)
    forward, inverse = FUNCTIONS[transform]
    readings = positive_readings(transform, 30)
    got, _ = logs(torch.as_tensor(readings)[None])
    expected, _ = numbers(torch.as_tensor(forward(readings))[None])
    np.testing.assert_allclose(got, inverse(expected.numpy()), rtol=1e-10)


@both
@torch.no_grad()
def test_what_has_no_logarithm_is_missing(transform: str) -> None:
    logs, _ = make_pair(transform)
    readings = torch.as_tensor(positive_readings(transform, 30))
    holes = torch.zeros_like(readings, dtype=torch.bool)
    holes[5:9, 0] = holes[20, 1] = True
    expected, _ = logs(torch.where(holes, torch.nan, readings)[None])
    for wrong in (-1.0, -7.0, -torch.inf, *([0.0] if transform == "log" else [])):
        got, _ = logs(torch.where(holes, wrong, readings)[None])
        torch.testing.assert_close(got, expected, atol=0, rtol=0)


@both
def test_the_graph_takes_raw_readings(transform: str, tmp_path: Path) -> None:
    logs, _ = make_pair(transform)
    path = tmp_path / "model.onnx"
    onnx.save(
        build_step_graph(logs, channels=("a", "b", "c"), step=None, library_version="test"), path
    )
    readings = positive_readings(transform, 200)
    readings[50:60, 1] = -1.0  # no logarithm
    assert worst_errors(logs, path, readings=readings).max() < 2e-5
    assert StreamModel(path).contract.transform == transform


@both
@pytest.mark.parametrize("y", [ONE, PANEL], ids=["one", "panel"])
def test_a_fit_is_that_of_the_logarithms(transform: str, y: pd.Series) -> None:
    forward, inverse = FUNCTIONS[transform]
    ours = small(target_transform=transform, max_steps=20).fit(y)
    theirs = small(max_steps=20).fit(forward(y))
    levels = ours.predict_quantiles()
    np.testing.assert_allclose(levels, inverse(theirs.predict_quantiles()), rtol=1e-5)
    more = {"one": ONE.iloc[-20:], "panel": PANEL.groupby(level=0).tail(20)}[
        "one" if y is ONE else "panel"
    ]
    shifted = more.copy()
    steps = pd.Timedelta("20h")
    shifted.index = (
        more.index + steps
        if y is ONE
        else more.index.set_levels(more.index.levels[1] + steps, level=1)
    )
    ours.partial_fit(shifted), theirs.partial_fit(forward(shifted))
    np.testing.assert_allclose(ours.predict(), inverse(theirs.predict()), rtol=1e-5)


def test_saved_exported_and_streamed(tmp_path: Path) -> None:
    forecaster = small(target_transform="log", max_steps=20).fit(ONE)
    forecaster.save(tmp_path / "model")
    loaded = XLSTMForecaster.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.predict(), forecaster.predict())
    assert export_onnx(loaded, tmp_path / "model.onnx").random < 1e-4
    stream = StreamModel(tmp_path / "model.onnx").create_stream()
    for reading in forecaster.context_.longest.values:
        forecast = stream.step(reading).forecast
    np.testing.assert_allclose(forecast[:, 0], forecaster.predict(), rtol=1e-4)


def test_a_series_of_a_panel_is_exported_in_its_units(tmp_path: Path) -> None:
    forecaster = small(target_transform="log", max_steps=20).fit(PANEL)
    export_onnx(forecaster, tmp_path / "model.onnx", series="b")
    stream = StreamModel(tmp_path / "model.onnx").create_stream()
    for reading in forecaster.context_.series["b"].values:
        forecast = stream.step(reading).forecast
    np.testing.assert_allclose(forecast[:, 0], forecaster.predict().loc["b"], rtol=1e-4)


def test_intervals_stay_where_readings_are() -> None:
    y = sales(400, level=1.0) ** 3  # far more above than below
    forecaster = small(target_transform="log", quantiles=(0.5,), max_steps=5).fit(y)
    bounds = forecaster.predict_interval(coverage=0.9)
    assert (bounds["lower"] == 0).any()
    assert (bounds["lower"] >= 0).all()


@pytest.mark.parametrize(
    ("transform", "value", "cure"),
    [("log", 0.0, "above 0: take 'log1p'"), ("log1p", -1.0, "above -1: shift the readings")],
)
def test_readings_without_a_logarithm_are_named(transform: str, value: float, cure: str) -> None:
    wrong = ONE.copy()
    wrong.iloc[100] = value
    place = (
        f"{value} at 2024-01-05 04:00:00, but target_transform='{transform}' needs readings {cure}"
    )
    with pytest.raises(SeriesError, match="`y` column 'sold' is " + place):
        small(target_transform=transform).fit(wrong)
    fitted = small(target_transform=transform).fit(ONE.iloc[:80])
    for method in (fitted.predict, fitted.score, fitted.update):
        with pytest.raises(SeriesError, match=place):
            method(wrong.iloc[80:])
    with pytest.raises(SeriesError, match=place):
        backtest(small(target_transform=transform), wrong, n_windows=16)
    panel = pd.concat({"x": ONE, "y": wrong})
    with pytest.raises(SeriesError, match="of series 'y' is"):
        small(target_transform=transform).fit(panel)


def test_an_unknown_transform_is_refused() -> None:
    with pytest.raises(
        ValueError, match="`target_transform` must be 'log', 'log1p' or None, got 'sqrt'"
    ):
        small(target_transform="sqrt").fit(ONE)
    with pytest.raises(ValueError, match="`target_transform` must be"):
        small(target_transform=["log"]).fit(ONE)
    with pytest.raises(ValueError, match="`target_transform` must be"):
        backtest(small(target_transform="sqrt"), ONE, n_windows=2)


@both
@pytest.mark.parametrize("spread", [0.1, 0.05])
def test_percents_of_a_high_level_are_exported(
    transform: str, spread: float, tmp_path: Path
) -> None:
    y = 5e4 * (1 + spread * np.sin(np.arange(200) * np.pi / 4))
    report = export_onnx(
        small(target_transform=transform, max_steps=20, conv_length=4).fit(y),
        tmp_path / "model.onnx",
    )
    assert max(report.random, report.real) < 5e-5


def test_counts_with_many_zeros_are_exported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(300) < 0.7, 0.0, np.ceil(rng.exponential(1e4, 300)))
    report = export_onnx(
        small(target_transform="log1p", max_steps=50).fit(y), tmp_path / "model.onnx"
    )
    assert report.random < 1e-4


def test_readings_of_many_sizes_are_exported(tmp_path: Path) -> None:
    y = np.exp(8 * np.random.default_rng(0).standard_normal(200))
    assert export_onnx(small(target_transform="log").fit(y), tmp_path / "model.onnx").real < 1e-4


def test_online_intervals_stay_where_readings_are() -> None:
    calibration = Calibration(np.sort(np.random.default_rng(0).standard_normal((100, 1, 1)), 0))
    forecast = np.array([[[1.0, 2.0, 9.0]]])[0]
    for lowest, expected in ((-np.inf, False), (0.0, True)):
        online = OnlineIntervals(calibration, median=1, lowest=lowest)
        assert (online.step(np.array([1.0]), forecast)[0, 0, 0] == 0) == expected


def test_an_embedding_beside_mixed_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="leave one of the two out"):
        small(channels="mixed", channel_embedding=True).fit(np.stack([ARRAY, ARRAY], 1))


def test_two_files_need_two_names(tmp_path: Path) -> None:
    forecaster = small(max_steps=1).fit(ARRAY)
    with pytest.raises(ValueError, match="`warm_up` is a second file"):
        export_onnx(forecaster, tmp_path / "model.onnx", warm_up=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
