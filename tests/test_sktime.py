"""sktime's own checks pass, and what they do not ask is right too."""

import inspect
import pickle
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import ARRAY
from xlstm_ts import XLSTMForecaster as Forecaster

pytest.importorskip("sktime", reason="sktime is not installed: pip install 'xlstm-ts[sktime]'")

from sktime.forecasting.base import ForecastingHorizon
from sktime.split import SlidingWindowSplitter
from sktime.utils.estimator_checks import check_estimator

from xlstm_ts.sktime import XLSTMForecaster, _interpolate
from xlstm_ts.steps import future_index

DAYS = pd.period_range("2020", periods=160, freq="D")
Y = pd.Series(ARRAY, DAYS, name="load")
COUNTED = pd.Series(ARRAY)
LEVELS = [0.02, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9, 0.98]


def small(**changes: object) -> XLSTMForecaster:
    return XLSTMForecaster(**XLSTMForecaster.get_test_params()[0] | changes)


def wrapped(forecaster: XLSTMForecaster) -> Forecaster:
    return Forecaster(**forecaster.get_params())


# sktime warns of its own use of pandas, and some of its panels are too short to train on.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_passes_the_checks_of_sktime() -> None:
    results = check_estimator(XLSTMForecaster, verbose=False)
    assert len(results) > 850
    assert sum("WithX" in name for name in results) > 50
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}


def test_has_the_parameters_of_the_forecaster() -> None:
    ours, theirs = (inspect.signature(each).parameters for each in (XLSTMForecaster, Forecaster))
    differs = {name: ours[name].default for name in theirs if ours[name] != theirs[name]}
    assert list(ours) == list(theirs)
    assert differs == {"known_future": "all"}
    params = XLSTMForecaster(7, d_model=8).get_params()
    assert params == Forecaster(7, d_model=8, known_future="all").get_params()
    assert XLSTMForecaster(known_future=()).clone().known_future == ()
    with pytest.raises(TypeError, match="depth"):
        XLSTMForecaster(depth=3)


INDEXES = {
    "periods": DAYS,
    "stamps": pd.date_range("2024", periods=160, freq="15min"),
    "counts": COUNTED.index + 7,
}


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("relative", [True, False])
def test_forecasts_the_steps_that_are_asked_for(kind: str, relative: bool) -> None:
    y = pd.Series(ARRAY, INDEXES[kind])
    whole = wrapped(small()).fit(y).predict()
    forecaster = small().fit(y)
    # The steps of a horizon need not be in order, its times are kept as they are.
    asked = [5, 2] if relative else ForecastingHorizon(whole.index[[1, 4]], is_relative=False)
    pd.testing.assert_series_equal(forecaster.predict(asked), whole.iloc[[1, 4]], check_freq=False)
    after = future_index(whole.index, 1)
    beyond = [6] if relative else ForecastingHorizon(after, is_relative=False)
    with pytest.raises(ValueError, match=r"none of the 5 steps after .*larger `horizon`"):
        forecaster.predict(beyond)
    with pytest.raises(NotImplementedError, match="in-sample"):
        forecaster.predict([-1, 1])


def test_forecasts_each_series_of_a_panel_from_its_own_end() -> None:
    parts = {("a", 1): Y.iloc[:-20], ("b", 1): 100 * Y, ("b", 2): Y.iloc[30:]}
    panel = pd.concat(parts, names=["site", "meter", "day"]).to_frame("load")
    forecast = small().fit(panel).predict([1, 3])
    pd.testing.assert_frame_equal(
        forecast, wrapped(small()).fit(panel).predict().iloc[[0, 2, 5, 7, 10, 12]]
    )
    ends = forecast.index.to_frame(index=False).groupby(["site", "meter"])["day"].max()
    assert ends.tolist() == [part.index[-1] + 3 for part in parts.values()]


@pytest.mark.parametrize("wide", [False, True])
def test_levels_are_in_order_and_trained_ones_exact(wide: bool) -> None:
    y = pd.DataFrame({"a": Y, "b": -Y}) if wide else Y
    forecaster = small().fit(y)
    quantiles = forecaster.predict_quantiles([2, 5], alpha=LEVELS)
    names = ["a", "b"] if wide else ["load"]
    assert quantiles.columns.tolist() == [(name, level) for name in names for level in LEVELS]
    trained = forecaster.forecaster_.predict_quantiles().iloc[[1, 4]].to_numpy()
    exact = quantiles.loc[:, quantiles.columns.isin([0.1, 0.5, 0.9], level=1)]
    np.testing.assert_array_equal(exact.to_numpy(), trained)
    assert all((quantiles[name].diff(axis=1).iloc[:, 1:] > 0).all(axis=None) for name in names)


def test_normal_quantiles_stay_normal() -> None:
    exact = NormalDist(3, 2).inv_cdf
    trained, wanted = (0.1, 0.5, 0.9), (0.99, 0.2, 0.85, 0.01)
    values = np.array([[[exact(level) for level in trained]]])
    found = _interpolate(values, trained, alpha=wanted)
    np.testing.assert_allclose(found[0, 0], [exact(level) for level in wanted])


def test_a_single_level_tells_no_other() -> None:
    forecaster = small(quantiles=(0.5,)).fit(Y)
    median = forecaster.predict_quantiles([1, 2], alpha=[0.5])
    np.testing.assert_array_equal(median.iloc[:, 0], forecaster.predict([1, 2]))
    with pytest.raises(ValueError, match=r"0\.5 alone"):
        forecaster.predict_interval()


@pytest.mark.parametrize("y", [Y, COUNTED], ids=["periods", "counts"])
def test_update_takes_in_what_is_new(y: pd.Series) -> None:
    forecaster = small().fit(y.iloc[:100])
    other = wrapped(small()).fit(y.iloc[:100])
    weights = [weight.clone() for weight in forecaster.forecaster_.model_.parameters()]
    forecaster.update(y.iloc[90:110], update_params=False)  # ten of them are known
    other.update(y.iloc[100:110])
    np.testing.assert_array_equal(forecaster.predict([1, 2, 3, 4, 5]), other.predict())
    forecaster.update(y.iloc[:110], update_params=True)  # nothing new to train on
    assert all(map(torch.equal, weights, forecaster.forecaster_.model_.parameters()))
    forecaster.update(y.iloc[110:120], update_params=True)
    assert not all(map(torch.equal, weights, forecaster.forecaster_.model_.parameters()))
    assert forecaster.predict([1]).index[0] == y.index[120]


@pytest.mark.parametrize("y", [Y, COUNTED], ids=["periods", "counts"])
def test_readings_left_out_before_an_update_are_missing(y: pd.Series) -> None:
    forecaster = small().fit(y.iloc[:100]).update(y.iloc[101:110], update_params=False)
    gap = y.iloc[100:110].where(y.index[100:110] > y.index[100])
    other = small().fit(y.iloc[:100]).update(gap, update_params=False)
    pd.testing.assert_series_equal(forecaster.predict([1, 5]), other.predict([1, 5]))
    assert forecaster.predict([1]).index[0] == y.index[110]


def test_update_takes_in_series_of_a_panel_and_new_ones() -> None:
    panel = pd.concat({"a": Y.iloc[:80], "b": Y.iloc[:90]}, names=["id", "day"]).to_frame()
    new = pd.concat({"b": Y.iloc[85:100], "c": Y.iloc[:50]}, names=["id", "day"]).to_frame()
    forecaster = small().fit(panel).update(new, update_params=False)
    assert forecaster.predict([1]).index.tolist() == [
        ("a", Y.index[80]), ("b", Y.index[100]), ("c", Y.index[50]),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning:sktime")
def test_goes_through_the_past_from_each_window() -> None:
    forecaster = small().fit(Y)
    before = forecaster.predict([1, 2])
    windows = SlidingWindowSplitter(fh=[1, 2], window_length=20, step_length=50)
    forecasts = forecaster.update_predict(Y, cv=windows, update_params=False)
    expected = [
        forecaster.forecaster_.predict(Y.iloc[start : start + 20]).iloc[:2]
        for start in (0, 50, 100)
    ]
    # sktime gives one column to each window.
    np.testing.assert_array_equal(forecasts.max(axis=1), pd.concat(expected))
    pd.testing.assert_series_equal(forecaster.predict([1, 2]), before)


COLUMNS = pd.DataFrame(
    {"temp": np.cos(np.arange(165)), "promo": np.arange(165) % 7 == 0},
    pd.period_range("2020", periods=165, freq="D"),
).astype(float)
FORMS = {
    "periods": (Y, COLUMNS),
    "counts": (COUNTED, COLUMNS.reset_index(drop=True)),
    "panel": tuple(
        pd.concat({"a": one, "b": one[40:]}, names=["id", "day"]) for one in (Y.to_frame(), COLUMNS)
    ),
    "hierarchy": tuple(
        pd.concat({("x", "a"): one, ("y", "b"): one[40:]}, names=["site", "id", "day"])
        for one in (Y.to_frame(), COLUMNS)
    ),
}


def at(index: pd.Index, X: pd.DataFrame) -> pd.DataFrame:
    return X[X.index.isin(index)]


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_known_where_it_forecasts(form: str) -> None:
    y, X = FORMS[form]
    forecaster = small().fit(y, at(y.index, X))
    other = wrapped(small()).fit(y, at(y.index, X))
    assert other.covariates_.named("known") == ["temp", "promo"]
    expected = other.predict(X=X)
    ahead = X[~X.index.isin(y.index)]
    np.testing.assert_array_equal(forecaster.predict([1, 2, 3, 4, 5], X=ahead), expected)
    some = forecaster.predict([2, 5], X=X)
    # Rows of the steps in between are not needed, and would change nothing.
    pd.testing.assert_index_equal(forecaster.predict([2, 5], X=at(some.index, X)).index, some.index)
    np.testing.assert_array_equal(forecaster.predict([2, 5], X=at(some.index, X)), some)
    levels = forecaster.predict_quantiles([2, 5], X=at(some.index, X), alpha=[0.1, 0.5])
    np.testing.assert_array_equal(
        levels.xs(0.5, axis=1, level=1).to_numpy().ravel(), some.to_numpy().ravel()
    )
    with pytest.raises(ValueError, match=r"`X` has no row for .*which `fh` asks for"):
        forecaster.predict([2, 4, 5], X=at(some.index, X))
    with pytest.raises(ValueError, match="`X` is missing: give temp, promo of the 5 times after"):
        forecaster.predict([1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("update_params", [False, True])
def test_updates_take_columns(form: str, update_params: bool) -> None:
    y, X = FORMS[form]
    cut = y.index.get_level_values(-1)
    start, end = (
        (cut < COLUMNS.index[100], cut >= COLUMNS.index[90])
        if form != "counts"
        else (cut < 100, cut >= 90)
    )
    forecaster = small().fit(y[start], at(y[start].index, X))
    other = wrapped(small()).fit(y[start], X)
    forecaster.update(y[end], at(y[end].index, X), update_params=update_params)
    (other.partial_fit if update_params else other.update)(y[~start], X)
    np.testing.assert_array_equal(forecaster.predict([1, 2, 3, 4, 5], X), other.predict(X=X))


def test_columns_may_be_known_up_to_now_alone() -> None:
    forecaster = small(known_future=()).fit(Y, COLUMNS[:160])
    expected = wrapped(small(known_future=())).fit(Y, COLUMNS).predict()
    np.testing.assert_array_equal(forecaster.predict([1, 2, 3, 4, 5]), expected)
    np.testing.assert_array_equal(forecaster.predict([1, 2, 3, 4, 5], COLUMNS[160:]), expected)
    some = small(known_future=["promo"], calendar=["dayofweek"]).fit(Y, COLUMNS[:160])
    some.predict([1], COLUMNS[160:161])


@pytest.mark.filterwarnings("ignore::FutureWarning:sktime")
def test_goes_through_the_past_with_columns() -> None:
    forecaster = small().fit(Y, COLUMNS[:160])
    before = forecaster.predict([1, 2], COLUMNS)
    windows = SlidingWindowSplitter(fh=[1, 2], window_length=20, step_length=50)
    forecasts = forecaster.update_predict(Y, cv=windows, X=COLUMNS, update_params=False)
    expected = [
        forecaster.forecaster_.predict(Y.iloc[start : start + 20], COLUMNS).iloc[:2]
        for start in (0, 50, 100)
    ]
    np.testing.assert_array_equal(forecasts.max(axis=1), pd.concat(expected))
    pd.testing.assert_series_equal(forecaster.predict([1, 2], COLUMNS), before)


def test_survives_pickling() -> None:
    forecaster = small().fit(Y)
    again = pickle.loads(pickle.dumps(forecaster))
    pd.testing.assert_series_equal(again.predict([1, 4]), forecaster.predict([1, 4]))


def test_levels_stay_where_readings_are() -> None:
    y = pd.Series(np.exp(2 * np.sin(np.arange(120) * np.pi / 4)))
    forecaster = XLSTMForecaster(
        4,
        context_length=16,
        patch_length=2,
        d_model=8,
        n_heads=2,
        max_steps=3,
        target_transform="log",
    )
    fh = [1, 2, 3, 4]
    levels = forecaster.fit(y).predict_quantiles(fh=fh, alpha=[1e-6, 0.3, 0.5])
    assert (levels.to_numpy() > 0).all()
    low, middle, _ = forecaster.forecaster_.predict_quantiles().to_numpy().T
    np.testing.assert_allclose(levels.iloc[:, 2], middle)
    share = NormalDist().inv_cdf(0.3) / NormalDist().inv_cdf(0.1)  # of the way to the lowest
    np.testing.assert_allclose(levels.iloc[:, 1], middle ** (1 - share) * low**share)
