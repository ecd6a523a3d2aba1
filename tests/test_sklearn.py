"""scikit-learn's own checks: what holds for a series is kept, the rest is listed with reasons."""

from collections.abc import Callable
from typing import Any

import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from xlstm_ts import XLSTMForecaster, XLSTMRegressor

A_SERIES = "rows are readings in the order of time, no samples: what is forecast comes after them"
OWN_WORDS = "refused as the check wants, but in words about series, channels and readings"

EXPECTED = {
    "check_methods_sample_order_invariance": A_SERIES,
    "check_methods_subset_invariance": A_SERIES,
    "check_fit1d": "one axis is a series of one channel",
    "check_n_features_in": "a series has channels, and `channels_` names them",
    "check_n_features_in_after_fitting": "a series has channels, and `channels_` names them",
    "check_dtype_object": "numbers held as objects are refused, with the cure: no guess at text",
    "check_complex_data": OWN_WORDS,
    "check_estimators_empty_data_messages": OWN_WORDS,
    "check_fit2d_1sample": OWN_WORDS,
    "check_fit2d_predict1d": OWN_WORDS,
}


class Checked(XLSTMForecaster):
    """The forecaster with the unused target that the checks hand on: `fit(y)` takes none."""

    def fit(self, X: NDArray[Any], y: None = None) -> "Checked":
        return super().fit(X)

    def partial_fit(self, X: NDArray[Any], y: None = None) -> "Checked":
        return super().partial_fit(X)

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        return super().predict(X)

    def score(self, X: NDArray[Any], y: None = None) -> float:
        return super().score(X)


# The checks bring series with gaps and of constants on purpose.
@pytest.mark.filterwarnings("ignore")
def test_keeps_the_contract_of_scikit_learn() -> None:
    forecaster = Checked(
        2, context_length=4, patch_length=1, d_model=4, n_heads=1, blocks="m", max_steps=2,
        random_state=0,
    )  # fmt: skip
    results = check_estimator(
        forecaster, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None
    )
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert failed == {}
    # What begins to pass leaves the list.
    assert {one["check_name"] for one in results if one["status"] == "xfail"} == set(EXPECTED)


TIME_STEPS = "rows are time steps: what is told at one depends on those before it, in their order"

REGRESSOR = XLSTMRegressor(
    context_length=8, d_model=8, n_heads=1, blocks="m", dropout=0.0, max_steps=30, batch_size=4,
    learning_rate=0.04, random_state=0,
)  # fmt: skip
EXPECTED_OF_REGRESSOR = {
    "check_methods_sample_order_invariance": TIME_STEPS,
    "check_methods_subset_invariance": TIME_STEPS,
}


# What begins to pass leaves the list here too: the configuration of pytest is strict about it.
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([REGRESSOR], expected_failed_checks=lambda _: EXPECTED_OF_REGRESSOR)
def test_regressor_keeps_the_contract(
    estimator: BaseEstimator, check: Callable[[BaseEstimator], None]
) -> None:
    check(estimator)
