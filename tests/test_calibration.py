"""Conformal intervals hold as often as they say, and their ranks are those of the proof."""

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.calibration import (
    Calibration,
    OnlineIntervals,
    calibrate,
    calibrate_tails,
    intervals,
    widths,
)
from xlstm_ts.panels import TimeSeries

RNG = np.random.default_rng(0)


def forecasts_of(count: int, *, horizon: int = 2, channels: int = 3) -> np.ndarray:
    middle = RNG.standard_normal((count, horizon, channels))
    spread = RNG.uniform(1, 5, (count, horizon, channels))
    return np.stack((middle - spread, middle, middle + 2 * spread), -1)


def draw(forecasts: np.ndarray) -> np.ndarray:
    """Return truths that err by a skewed law in units of the forecast's own width."""
    return forecasts[..., 1] + widths(forecasts) * RNG.exponential(size=forecasts.shape[:-1])


def test_ranks_are_those_of_the_finite_sample() -> None:
    calibration = Calibration(np.arange(1.0, 20.0).reshape(19, 1, 1))
    # (19 + 1) * 0.95 = 19: the largest of 19; for 0.8 the 18th.
    assert calibration.factors(0.9).ravel().tolist() == [1, 19]
    assert calibration.factors(0.8).ravel().tolist() == [2, 18]


def test_too_few_errors_are_refused() -> None:
    calibration = Calibration(np.arange(18.0).reshape(18, 1, 1))
    with pytest.raises(ValueError, match=r"coverage of 0.9 needs at least 19 .* there are 18"):
        calibration.factors(0.9)
    with pytest.raises(ValueError, match=r"`coverage` must be .* got 90"):
        calibration.factors(90)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_coverage_is_nominal_on_average_even_with_few_errors(coverage: float) -> None:
    held = []
    for _ in range(200):
        known, new = forecasts_of(60), forecasts_of(200)
        calibration = calibrate(known, draw(known), median=1)
        bounds = intervals(new, calibration, median=1, coverage=coverage)
        truth = draw(new)
        held.append(((bounds[..., 0] <= truth) & (truth <= bounds[..., 1])).mean())
    # Exactly (2 k - n - 1) / (n + 1) with k = ceil(61 (1 + coverage) / 2).
    rank = np.ceil(61 * (1 + coverage) / 2)
    assert np.mean(held) == pytest.approx((2 * rank - 61) / 61, abs=0.005)


def test_missing_truths_do_not_count() -> None:
    forecasts = forecasts_of(40)
    truth = draw(forecasts)
    truth[::2, 0] = np.nan
    calibration = calibrate(forecasts, truth, median=1)
    half = calibrate(forecasts[1::2], truth[1::2], median=1)
    np.testing.assert_array_equal(calibration.factors(0.8)[:, 0], half.factors(0.8)[:, 0])


def test_point_forecasts_have_plain_errors() -> None:
    forecasts = RNG.standard_normal((30, 2, 1, 1))
    truth = forecasts[..., 0] + np.arange(30)[:, None, None]
    calibration = calibrate(forecasts, truth, median=0)
    np.testing.assert_allclose(calibration.errors[:, 0, 0], np.arange(30), atol=1e-12)


def test_quantiles_that_touch_give_finite_errors() -> None:
    forecasts = np.full((30, 1, 1, 3), 5.0)
    calibration = calibrate(forecasts, np.full((30, 1, 1), 5.1), median=1)
    bounds = intervals(forecasts, calibration, median=1, coverage=0.8)
    np.testing.assert_allclose(bounds[..., 1], 5.1)


def test_tails_are_forecast_from_within() -> None:
    asked = []

    def forecast(one: TimeSeries, origins: np.ndarray) -> np.ndarray:
        asked.append(origins.tolist())
        return np.tile([-1.0, 0.0, 1.0], (len(origins), 3, 1, 1))

    series = [
        TimeSeries(values=np.arange(float(n))[:, None], index=pd.RangeIndex(n)) for n in (20, 9, 30)
    ]
    calibration = calibrate_tails(
        series, starts=(12, 0, 30), forecast=forecast, horizon=3, median=1
    )
    assert asked == [[12, 13, 14, 15, 16, 17]]
    # Truth less the forecast of zero, in units of the width of two.
    assert (2 * calibration.errors[:, 2, 0]).tolist() == [14, 15, 16, 17, 18, 19]
    empty = calibrate_tails(series, starts=(20, 9, 30), forecast=forecast, horizon=3, median=1)
    assert empty.errors.shape == (0, 3, 1)


def run_online(online: OnlineIntervals, readings: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    """Return whether each reading lay (below, above) the bounds given for it, (T, 2, H, C)."""
    horizon, channels = forecasts.shape[1:3]
    given, misses = {}, np.full((len(readings), 2, horizon, channels), np.nan)
    for t, (reading, forecast) in enumerate(zip(readings, forecasts, strict=True)):
        for step in range(horizon):
            if (t - step - 1) in given and np.isfinite(reading).all():
                lower, upper = np.moveaxis(given[t - step - 1][step], -1, 0)
                misses[t, :, step] = reading < lower, reading > upper
        given[t] = online.step(reading, forecast)
    return misses


def test_online_misses_are_what_the_factors_have_gone() -> None:
    forecasts = np.repeat(forecasts_of(1, horizon=5, channels=2), 400, 0)
    readings = 9 * RNG.standard_normal((400, 2))
    readings[RNG.random(400) < 0.2] = np.nan
    calibration = calibrate(forecasts[:50], np.zeros((50, 5, 2)), median=1)
    online = OnlineIntervals(calibration, median=1, coverage=0.8, rate=0.05)
    start = online.factors.copy()
    misses = run_online(online, readings, forecasts)
    gone = (online.factors - start) * np.array([-1, 1])[:, None, None]
    np.testing.assert_allclose(np.nansum(misses - 0.1, 0), gone / 0.05, atol=1e-9)


def test_online_intervals_follow_a_drift() -> None:
    forecasts = np.broadcast_to(np.array([-1.0, 0.0, 1.0]), (4000, 3, 1, 3))
    readings = RNG.standard_normal((4000, 1))
    calibration = calibrate(forecasts[:500], readings[:500, None].repeat(3, 1), median=1)
    bounds = intervals(forecasts[:1], calibration, median=1, coverage=0.9)[0, 0, 0]
    drifted = 3 * readings[500:]
    split = ((bounds[0] <= drifted) & (drifted <= bounds[1])).mean()
    assert split < 0.5
    online = OnlineIntervals(calibration, median=1, coverage=0.9, rate=0.05)
    misses = run_online(online, drifted, forecasts[500:])
    assert 1 - np.nansum(misses[500:], 1).mean() == pytest.approx(0.9, abs=0.02)
