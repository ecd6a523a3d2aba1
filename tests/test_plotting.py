"""A forecast is drawn as it is, whatever kind of series it is of, and says so in grey."""

import io
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import ForecastDisplay, XLSTMForecaster
from xlstm_ts.exceptions import BackendError, SeriesError

FRAME = pd.DataFrame({"a": ARRAY, 3: ARRAY * 100}, index=HOURLY)
KINDS = {
    "1-D": ARRAY,
    "2-D": np.stack([ARRAY, ARRAY + 5], 1),
    "series": pd.Series(ARRAY, HOURLY, name="load"),
    "periods": pd.Series(ARRAY, pd.period_range("2020", periods=160, freq="D")),
    "frame": FRAME,
}
LABELS = {
    "1-D": "reading",
    "2-D": "reading",
    "series": "time (Europe/Rome)",
    "periods": "time",
    "frame": "time (Europe/Rome)",
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def forecaster(kind: str) -> XLSTMForecaster:
    return small().fit(KINDS[kind][:-4])


def drawn(axis: object, label: str) -> np.ndarray:
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return line.get_ydata()


@pytest.mark.parametrize("given", [True, False])
def test_draws_what_the_estimator_forecasts(
    kind: str, given: bool, forecaster: XLSTMForecaster
) -> None:
    y = KINDS[kind]
    context, came = (y[:-4] if given else None), y[-4:]
    display = ForecastDisplay.from_estimator(forecaster, context, actual=came)
    forecast = np.asarray(forecaster.predict(context)).reshape(4, -1)
    levels = np.asarray(forecaster.predict_quantiles(context)).reshape(4, -1, 3)
    readings = np.asarray(y).reshape(160, -1)
    assert len(display.axes_) == readings.shape[1]
    for j, axis in enumerate(display.axes_):
        np.testing.assert_allclose(drawn(axis, "forecast"), forecast[:, j], rtol=1e-5)
        np.testing.assert_array_equal(drawn(axis, "readings"), readings[144:156, j])
        np.testing.assert_array_equal(drawn(axis, "what came"), readings[156:, j])
        (band,) = axis.collections
        assert band.get_label() == "0.1 to 0.9"
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(levels[:, j].min(), rel=1e-5)
        assert heights.max() == pytest.approx(levels[:, j].max(), rel=1e-5)
        assert len({line.get_linestyle() for line in axis.lines}) == 3  # told apart in grey
        times = [line.get_xdata(orig=False) for line in axis.lines]
        assert times[0][-1] < times[1][0]
        np.testing.assert_array_equal(times[1], times[2])  # what came and its forecast
    assert display.ax_ is display.axes_[0]
    assert display.axes_[-1].get_xlabel() == LABELS[kind]
    display.figure_.savefig(io.BytesIO())


def test_times_are_of_their_zone() -> None:
    forecaster = small().fit(FRAME)
    display = ForecastDisplay.from_estimator(forecaster)
    assert str(display.axes_[-1].xaxis.get_major_formatter()._tz) == "Europe/Rome"


@pytest.mark.parametrize("series", [True, False])
def test_predictions_that_are_there_already(series: bool) -> None:
    y = FRAME["a"] if series else FRAME
    forecaster = small(quantiles=(0.05, 0.3, 0.5, 0.7, 0.95)).fit(y)
    quantiles = forecaster.predict_quantiles()
    display = ForecastDisplay.from_predictions(y.iloc[-30:], quantiles, actual=y.to_numpy()[:2])
    for axis, channel in zip(display.axes_, ["a"] if series else ["a", 3], strict=True):
        expected = quantiles[0.5] if series else quantiles[channel, 0.5]
        np.testing.assert_array_equal(drawn(axis, "forecast"), expected)
        assert [band.get_label() for band in axis.collections] == ["0.05 to 0.95", "0.3 to 0.7"]
        shades = [band.get_facecolor()[0, :3].mean() for band in axis.collections]
        assert shades[0] > shades[1]
        assert axis.get_ylabel() == str(channel)


def test_arrays_that_came_go_on_from_the_history_as_far_as_the_forecast() -> None:
    forecaster = small().fit(ARRAY)
    display = ForecastDisplay.from_estimator(forecaster, actual=np.arange(9))
    assert display.actual.index.tolist() == [160, 161, 162, 163]
    assert drawn(display.ax_, "what came").tolist() == [0, 1, 2, 3]


def test_an_array_is_drawn_by_the_names_of_the_training_series() -> None:
    came = np.ma.masked_equal([[1, 2], [-999, 4]], -999)
    forecaster = small().fit(FRAME)
    display = ForecastDisplay.from_estimator(forecaster, FRAME.to_numpy(), actual=came)
    assert [axis.get_ylabel() for axis in display.axes_] == ["a", "3"]
    np.testing.assert_array_equal(drawn(display.ax_, "what came"), [1, np.nan])
    forecast = forecaster.predict(FRAME.to_numpy())
    np.testing.assert_allclose(drawn(display.ax_, "forecast"), forecast[:, 0], rtol=1e-5)


def test_a_point_forecast_has_no_band() -> None:
    display = ForecastDisplay.from_estimator(small(quantiles=(0.5,)).fit(ARRAY))
    assert not display.ax_.collections


def test_draws_where_it_is_told() -> None:
    forecaster = small().fit(FRAME)
    figure, axes = plt.subplots(1, 2)
    display = ForecastDisplay.from_estimator(forecaster, ax=axes)
    assert display.figure_ is figure
    assert list(display.axes_) == list(axes)
    assert len(plt.get_fignums()) == 1
    again = display.plot()
    assert again is display
    assert display.figure_ is not figure
    with pytest.raises(ValueError, match="`ax` must be 2 Axes, got 1"):
        display.plot(axes[0])


def test_what_cannot_be_drawn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFittedError):
        ForecastDisplay.from_estimator(small())
    forecaster = small().fit(FRAME)
    with pytest.raises(SeriesError, match="`y` has 1 channels"):
        ForecastDisplay.from_estimator(forecaster, ARRAY)
    with pytest.raises(SeriesError, match="`y` has the columns 3, a"):
        ForecastDisplay.from_estimator(forecaster, FRAME[[3, "a"]])
    with pytest.raises(SeriesError, match="`actual` has 1 channels, the forecast 2: a, 3"):
        ForecastDisplay.from_estimator(forecaster, actual=ARRAY[:4])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(BackendError, match=r"install xlstm-ts\[plot\]"):
        ForecastDisplay.from_estimator(forecaster)


def test_matplotlib_is_loaded_by_the_first_picture_only() -> None:
    names = "BacktestDisplay, ForecastDisplay, ResidualsDisplay"
    code = f"import sys; from xlstm_ts import {names}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
