"""Every metric against a plain formula or numbers worked out by hand; gaps never count."""

import numpy as np
import pytest

from xlstm_ts import metrics
from xlstm_ts.exceptions import SeriesError

RNG = np.random.default_rng(0)
LEVELS = (0.1, 0.4, 0.95)
TRUTH = RNG.standard_normal((4, 5, 3)) * [1, 10, 100]
TRUTH[RNG.random(TRUTH.shape) < 0.3] = np.nan
QUANTILES = np.sort(RNG.standard_normal((4, 5, 3, 3)) * [[1], [10], [100]], -1)
FORECAST = QUANTILES[..., 1]
SCALE = np.array([0.5, 20.0, 70.0])


def over_readings(formula: object) -> float:
    """Return the mean of a formula of (reading, index), in a loop over what came."""
    there = [index for index in np.ndindex(TRUTH.shape) if TRUTH[index] == TRUTH[index]]
    assert 0 < len(there) < TRUTH.size
    return sum(formula(TRUTH[index], index) for index in there) / len(there)


def pinball(y: float, index: tuple[int, ...], which: int) -> float:
    above = y - QUANTILES[index][which]
    return LEVELS[which] * above if above > 0 else (LEVELS[which] - 1) * above


def test_against_plain_formulas() -> None:
    squared = over_readings(lambda y, index: (y - FORECAST[index]) ** 2)
    absolute = over_readings(lambda y, index: abs(y - FORECAST[index]))
    scaled = over_readings(lambda y, index: abs(y - FORECAST[index]) / SCALE[index[2]])
    percent = over_readings(
        lambda y, index: 200 * abs(y - FORECAST[index]) / (abs(y) + abs(FORECAST[index]))
    )
    size = over_readings(lambda y, _: abs(y))
    losses = [over_readings(lambda y, index, q=q: pinball(y, index, q)) for q in range(3)]
    inside = over_readings(lambda y, index: QUANTILES[index][0] <= y <= QUANTILES[index][2])
    assert metrics.mse(TRUTH, FORECAST) == pytest.approx(squared)
    assert metrics.mae(TRUTH, FORECAST) == pytest.approx(absolute)
    assert metrics.rmse(TRUTH, FORECAST) == pytest.approx(squared**0.5)
    assert metrics.mase(TRUTH, FORECAST, scale=SCALE) == pytest.approx(scaled)
    assert metrics.smape(TRUTH, FORECAST) == pytest.approx(percent)
    assert metrics.wql(TRUTH, QUANTILES, levels=LEVELS) == pytest.approx(2 * sum(losses) / 3 / size)
    assert metrics.coverage(TRUTH, QUANTILES) == pytest.approx(inside)


def test_by_hand() -> None:
    truth = np.array([1.0, 4.0, np.nan, 0.0]).reshape(1, 4, 1)
    forecast = np.array([3.0, 2.0, 9.0, 0.0]).reshape(1, 4, 1)
    assert metrics.mse(truth, forecast) == pytest.approx(8 / 3)
    assert metrics.mae(truth, forecast) == pytest.approx(4 / 3)
    # 200 * 2/4, 200 * 2/6, and 0/0 as 0
    assert metrics.smape(truth, forecast) == pytest.approx((100 + 200 / 3 + 0) / 3)
    quantiles = np.stack((forecast - 1, forecast + 1), -1)
    # At 0.25: 0.75 * 1, 0.25 * 3, 0.25 * 1; at 0.75: 0.25 * 3, 0.75 * 1, 0.25 * 1; sum |y| = 5.
    expected = 2 * ((0.75 + 0.75 + 0.25) + (0.75 + 0.75 + 0.25)) / 2 / 5
    assert metrics.wql(truth, quantiles, levels=(0.25, 0.75)) == pytest.approx(expected)
    assert metrics.coverage(truth, quantiles) == pytest.approx(1 / 3)


def test_a_bound_that_is_met_covers() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    assert metrics.coverage(truth, np.stack((truth, truth + 1), -1)) == 1
    assert metrics.coverage(truth, np.stack((truth - 1, truth), -1)) == 1
    assert np.isnan(metrics.coverage(truth, truth[..., None]))


def test_point_forecast_as_every_quantile_is_its_weighted_absolute_error() -> None:
    quantiles = np.repeat(FORECAST[..., None], 3, -1)
    absolute = over_readings(lambda y, index: abs(y - FORECAST[index]))
    expected = absolute / over_readings(lambda y, _: abs(y))
    assert metrics.wql(TRUTH, quantiles, levels=(0.2, 0.5, 0.8)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("season", "expected"),
    [(1, [(2 + 1 + 6 + 1) / 4, (1 + 1) / 2]), (2, [(3 + 5 + 7) / 3, 6.0])],
)
def test_seasonal_scale_by_hand(season: int, expected: list[float]) -> None:
    values = np.array([[1, 0], [3, 1], [4, np.nan], [-2, 7], [-3, 8.0]])
    assert metrics.seasonal_scale(values, season=season).tolist() == expected


def test_seasonal_scale_of_nothing_to_compare_is_nan() -> None:
    values = np.array([[1, np.nan], [2, 5.0]])
    np.testing.assert_array_equal(metrics.seasonal_scale(values, season=1), [1, np.nan])
    np.testing.assert_array_equal(metrics.seasonal_scale(values, season=2), [np.nan, np.nan])


def test_seasonal_naive_has_mase_one_in_its_own_training_part() -> None:
    values = RNG.standard_normal((30, 2)) * [1, 50]
    scale = metrics.seasonal_scale(values, season=7)
    truth, forecast = values[None, 7:], values[None, :-7]
    assert metrics.mase(truth, forecast, scale=scale) == pytest.approx(1)


@pytest.mark.parametrize("silent", [0.0, np.nan])
def test_mase_leaves_out_channels_without_a_scale(silent: float) -> None:
    truth, forecast = np.zeros((1, 2, 2)), np.array([[[1.0, 5.0], [3.0, 5.0]]])
    assert metrics.mase(truth, forecast, scale=np.array([2.0, silent])) == 1
    assert np.isnan(metrics.mase(truth, forecast, scale=np.array([silent, silent])))


def test_wql_of_zeros_alone_is_nan() -> None:
    zeros = np.zeros((1, 2, 1))
    assert np.isnan(metrics.wql(zeros, zeros[..., None] + 1, levels=(0.5,)))


@pytest.mark.parametrize("metric", ["mse", "mae", "rmse", "smape"])
def test_nothing_to_compare_is_an_error(metric: str) -> None:
    nothing = np.full((1, 2, 1), np.nan)
    with pytest.raises(SeriesError, match="no reading to compare"):
        getattr(metrics, metric)(nothing, np.zeros((1, 2, 1)))


def test_nothing_to_compare_is_an_error_for_the_others() -> None:
    nothing, guesses = np.full((1, 2, 1), np.nan), np.zeros((1, 2, 1, 2))
    with pytest.raises(SeriesError, match="no reading"):
        metrics.mase(nothing, guesses[..., 0], scale=np.ones(1))
    with pytest.raises(SeriesError, match="no reading"):
        metrics.wql(nothing, guesses, levels=(0.1, 0.9))
    with pytest.raises(SeriesError, match="no reading"):
        metrics.coverage(nothing, guesses)
