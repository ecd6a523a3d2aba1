"""Residuals are truth minus forecast at their time, and their picture shows a pattern if any."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import ResidualsDisplay, backtest
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.residuals import autocorrelation
from xlstm_ts.results import Backtest

RNG = np.random.default_rng(0)
Y = pd.DataFrame({"a": ARRAY, "b": ARRAY * 100}, index=HOURLY)


@pytest.fixture(scope="module")
def result() -> Backtest:
    return backtest(small(), Y, n_windows=9, stride=2)


@pytest.mark.parametrize("step", [1, 3])
def test_residuals_of_a_backtest_are_at_their_times(result: Backtest, step: int) -> None:
    display = ResidualsDisplay.from_backtest(result, channel="b", step=step)
    times = HOURLY[[origin + step - 1 for origin in result.origins]]
    expected = Y.loc[times, "b"] - result.forecasts[:, step - 1, 1]
    pd.testing.assert_series_equal(display.residuals, expected, check_freq=False)
    assert display.ax_.get_xlabel() == "time (Europe/Rome)"
    assert display.ax_.get_ylabel() == "residual of b"
    assert display.axes_[3].get_xlabel() == "lag (hours)"
    lags = [path.vertices[0, 0] for path in display.axes_[3].collections[0].get_paths()]
    assert lags == list(range(2, 18, 2))
    display.figure_.savefig(io.BytesIO())


@pytest.mark.parametrize("missing", [0, 30])
def test_white_noise_stays_within_the_bounds(missing: int) -> None:
    truth, forecast = RNG.standard_normal((2, 300))
    truth[RNG.permutation(300)[:missing]] = np.nan
    figure, axes = plt.subplots(2, 2)
    display = ResidualsDisplay.from_predictions(truth, forecast, ax=axes)
    assert display.figure_ is figure
    in_time, histogram, normal, correlation = display.axes_
    np.testing.assert_array_equal(in_time.lines[0].get_ydata(), truth - forecast)
    assert sum(bar.get_height() for bar in histogram.patches) == 300 - missing
    points, line = (drawn.get_ydata() for drawn in normal.lines)
    assert np.corrcoef(points, line)[0, 1] > 0.99
    low, high = (line.get_ydata()[0] for line in correlation.lines[1:])
    assert high == pytest.approx(1.96 / (300 - missing) ** 0.5, rel=1e-4)
    assert low == -high
    heights = [path.vertices[1, 1] for path in correlation.collections[0].get_paths()]
    assert len(heights) == 40
    assert np.mean(np.abs(heights) > high) < 0.15


def test_normal_quantiles_by_hand() -> None:
    display = ResidualsDisplay.from_predictions([3.0, 1.0], [0.0, 0.0])
    points, line = display.axes_[2].lines
    # The quartiles of a normal distribution are 0.6745 from its mean.
    np.testing.assert_allclose(points.get_xdata(), [-0.6745, 0.6745], atol=1e-4)
    assert points.get_ydata().tolist() == [1, 3]
    np.testing.assert_allclose(line.get_ydata(), [2 - 0.6745, 2 + 0.6745], atol=1e-4)


def test_autocorrelation_against_a_plain_sum() -> None:
    values = RNG.standard_normal(30).cumsum()
    mean = sum(values) / 30
    power = sum((value - mean) ** 2 for value in values)
    for lag, got in enumerate(autocorrelation(values, longest=5), start=1):
        pairs = zip(values[:-lag], values[lag:], strict=True)
        assert got == pytest.approx(sum((a - mean) * (b - mean) for a, b in pairs) / power)


def test_autocorrelation_of_little() -> None:
    assert autocorrelation(np.full(5, 0.1)).tolist() == [0, 0, 0, 0]
    alternating = np.array([1.0, -1.0, 1.0, -1.0])
    assert autocorrelation(alternating).tolist() == [-0.75, 0.5, -0.25]
    with_gap = np.array([1.0, -1.0, np.nan, 1.0, -1.0])
    assert autocorrelation(with_gap, longest=1).tolist() == [-0.5]


@pytest.mark.parametrize("residual", [0.0, 0.1])
def test_residuals_that_do_not_vary_are_drawn(residual: float) -> None:
    forecast = np.full(20, 1 / 3)
    display = ResidualsDisplay.from_predictions(forecast + residual, forecast)
    assert sum(bar.get_height() for bar in display.axes_[1].patches) == 20


def test_series_have_to_share_their_times() -> None:
    truth = pd.Series(ARRAY, HOURLY, name="load")
    display = ResidualsDisplay.from_predictions(truth, truth + 1)
    assert display.residuals.tolist() == pytest.approx([-1] * 160)
    with pytest.raises(SeriesError, match="must have one index"):
        ResidualsDisplay.from_predictions(truth, truth.iloc[:-1])
    with pytest.raises(SeriesError, match="must have one index"):
        ResidualsDisplay.from_predictions(truth, ARRAY)


def test_what_cannot_be_drawn_is_named(result: Backtest) -> None:
    for step, message in ((0, "at least 1, got 0"), (5, "at most 4, got 5")):
        with pytest.raises(ValueError, match=f"`step` must be {message}"):
            ResidualsDisplay.from_backtest(result, step=step)
    with pytest.raises(SeriesError, match="There are 1 residuals, at least 2"):
        ResidualsDisplay.from_backtest(backtest(small(max_steps=1), Y, n_windows=1))
    with pytest.raises(ValueError, match="`ax` must be 4 Axes, got 1"):
        ResidualsDisplay.from_backtest(result, ax=plt.subplots()[1])
