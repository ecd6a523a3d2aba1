"""Rolling forecasts see only the past, and the skill is a plain ratio of errors."""

import numpy as np
import pytest
import torch

from tests.conftest import build_model, make_readings
from xlstm_ts import evaluation
from xlstm_ts.evaluation import fill_gaps, rolling_forecasts, seasonal_naive, skill, targets
from xlstm_ts.model import XLSTM

VALUES = make_readings(1, 40)[0].numpy()
ORIGINS = np.array([1, 5, 12, 13, 40])


@pytest.fixture(scope="module")
def model() -> XLSTM:
    return build_model("patch")


def test_each_forecast_is_that_of_its_window_alone(
    model: XLSTM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "BATCH", 2)
    got = rolling_forecasts(model, VALUES, origins=ORIGINS, context_length=12)
    assert got.dtype == np.float64
    for forecast, origin in zip(got, ORIGINS, strict=True):
        window = torch.as_tensor(VALUES[max(0, origin - 12) : origin])[None]
        with torch.no_grad():
            alone = model.forecast(window)[0].numpy()
        np.testing.assert_allclose(forecast, alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("context_length", [3, 12, 39])
def test_sees_its_context_and_nothing_else(model: XLSTM, context_length: int) -> None:
    origin = 30
    outside = np.concatenate(([0], np.arange(30 - context_length), np.arange(30, 40)))
    outside = outside[(outside < origin - context_length) | (outside >= origin)]
    changed = VALUES.copy()
    changed[outside] += 17
    one, same = (
        rolling_forecasts(model, values, origins=np.array([origin]), context_length=context_length)
        for values in (VALUES, changed)
    )
    np.testing.assert_array_equal(one, same)
    changed[origin - 1] += 17
    other = rolling_forecasts(
        model, changed, origins=np.array([origin]), context_length=context_length
    )
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("horizon", "season"), [(3, 1), (3, 4), (10, 4), (24, 24)])
def test_seasonal_naive_repeats_the_last_season(horizon: int, season: int) -> None:
    values = np.arange(100.0)[:, None] + np.array([0, 1000])
    origins = np.array([30, 31, 77])
    got = seasonal_naive(values, origins=origins, horizon=horizon, season=season)
    for row, origin in zip(got, origins, strict=True):
        whole = np.tile(values[origin - season : origin], (horizon, 1))[:horizon]
        np.testing.assert_array_equal(row, whole)


def test_seasonal_naive_needs_a_whole_season() -> None:
    origins = np.array([24, 23])
    with pytest.raises(ValueError, match=r"`origins` must be at least `season` \(24\), got 23"):
        seasonal_naive(np.zeros((99, 1)), origins=origins, horizon=3, season=24)


@pytest.mark.parametrize(
    ("season", "filled"),
    [(1, [np.nan, 1, 2, 2, 2, 5, 5]), (3, [np.nan, 1, 2, np.nan, 1, 5, np.nan])],
)
def test_gaps_are_filled_from_before(season: int, filled: list[float]) -> None:
    values = np.array([np.nan, 1, 2, np.nan, np.nan, 5, np.nan])
    both = np.stack((values, np.arange(7)), 1)
    expected = np.stack((filled, np.arange(7)), 1)
    np.testing.assert_array_equal(fill_gaps(both, season=season), expected)


def test_targets_are_what_came() -> None:
    values = np.arange(20.0)[:, None]
    got = targets(values, origins=np.array([0, 16]), horizon=4)
    assert got[..., 0].tolist() == [[0, 1, 2, 3], [16, 17, 18, 19]]


def test_skill_is_one_minus_a_ratio_by_channel() -> None:
    truth = np.zeros((2, 3, 2))
    naive = np.ones((2, 3, 2)) * [1, 10]
    assert skill(truth, naive, truth) == 1
    assert skill(naive, naive, truth) == 0
    assert skill(naive * [0.5, 0.25], naive, truth) == pytest.approx((0.5 + 0.75) / 2)
    assert skill(-2 * naive, naive, truth) == -1


def test_skill_counts_what_both_have() -> None:
    truth, naive = np.zeros((1, 4, 1)), np.ones((1, 4, 1))
    forecast = np.array([0.5, 0.5, 100, 100]).reshape(1, 4, 1)
    truth[0, 2], naive[0, 3] = np.nan, np.nan
    assert skill(forecast, naive, truth) == 0.5


@pytest.mark.parametrize("silent", ["nothing to compare", "naive is perfect"])
def test_skill_of_one_odd_channel_does_not_decide_all(silent: str) -> None:
    truth, naive = np.zeros((1, 4, 2)), np.ones((1, 4, 2))
    forecast = np.full((1, 4, 2), 0.5)
    if silent == "nothing to compare":
        truth[..., 1] = np.nan
    else:
        naive[..., 1] = 0
    # The first channel alone is 0.5; the other can be neither perfect nor endlessly bad.
    assert -1 <= skill(forecast, naive, truth) <= 0.5
