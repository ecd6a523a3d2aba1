"""The picture of a backtest shows its errors and its forecasts, each at its time."""

import io

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import BacktestDisplay, backtest
from xlstm_ts.results import Backtest

Y = pd.DataFrame({"a": ARRAY, "b": ARRAY * 100}, index=HOURLY)
Y.iloc[150, 1] = np.nan


@pytest.fixture(scope="module")
def apart() -> Backtest:
    return backtest(small(), Y, n_windows=3, stride=6)


def test_errors_are_means_by_step(apart: Backtest) -> None:
    display = BacktestDisplay.from_backtest(apart, channel="b")
    assert display.errors.index.tolist() == [1, 2, 3, 4]
    for line, (name, point) in zip(display.ax_.lines, apart.points().items(), strict=True):
        expected = np.nanmean(np.abs(point - apart.truth)[..., 1], 0)
        np.testing.assert_allclose(display.errors[name], expected)
        np.testing.assert_array_equal(line.get_ydata(), display.errors[name])
        assert line.get_label() == name
    assert len({line.get_linestyle() for line in display.ax_.lines}) == 3  # told apart in grey
    assert display.ax_.get_xlabel() == "hours ahead"
    assert display.ax_.get_ylabel() == "MAE of b"
    display.figure_.savefig(io.BytesIO())


def test_a_step_that_never_came_has_no_error() -> None:
    y = Y["a"].copy()
    y.iloc[[154, 158]] = np.nan
    errors = BacktestDisplay.from_backtest(backtest(small(), y, n_windows=2)).errors
    assert errors.isna().all(axis=1).tolist() == [False, False, True, False]


def test_forecasts_lie_over_the_truth_with_breaks_between_windows(apart: Backtest) -> None:
    display = BacktestDisplay.from_backtest(apart)
    truth, *fans = display.axes_[1].lines
    came = Y["a"].to_numpy()[144:160].copy()
    came[[4, 5, 10, 11]] = np.nan  # a stride of 6, a horizon of 4
    np.testing.assert_array_equal(truth.get_ydata(), came)
    assert len(fans) == len(display.axes_[1].collections) == 3
    times = truth.get_xdata(orig=False)
    for row, fan in enumerate(fans):
        np.testing.assert_array_equal(fan.get_ydata(), apart.forecasts[row, :, 0])
        np.testing.assert_array_equal(fan.get_xdata(orig=False), times[6 * row : 6 * row + 4])
    assert display.axes_[1].get_xlabel() == "time (Europe/Rome)"
    assert display.axes_[1].get_ylabel() == "a"


@pytest.mark.parametrize(("stride", "fans"), [(1, 3), (3, 5), (4, 9), (5, 9)])
def test_fans_do_not_overlap(stride: int, fans: int) -> None:
    result = backtest(small(max_steps=1), ARRAY, n_windows=9, stride=stride)
    display = BacktestDisplay.from_backtest(result)
    assert len(display.axes_[1].collections) == fans


def test_what_cannot_be_drawn_is_named(apart: Backtest) -> None:
    with pytest.raises(ValueError, match="`channel` must be one of a, b, got 'c'"):
        BacktestDisplay.from_backtest(apart, channel="c")
    axis = BacktestDisplay.from_backtest(apart).ax_
    with pytest.raises(ValueError, match="`ax` must be 2 Axes, got 1"):
        BacktestDisplay.from_backtest(apart, ax=axis)
