"""A forecaster with columns: each method takes them, none looks ahead, and they are of use."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import ForecastDisplay, XLSTMForecaster, backtest
from xlstm_ts.exceptions import SeriesError

LATER = HOURLY.append(pd.date_range(HOURLY[-1], periods=9, freq="h")[1:])
RNG = np.random.default_rng(1)
X = pd.DataFrame(
    {"temp": RNG.normal(20, 5, 168), "promo": (RNG.random(168) < 0.2).astype(float)}, LATER
)
Y = pd.Series(ARRAY, HOURLY, name="load")
PANEL = pd.concat({"a": Y, "b": 5 + 2 * Y[:100]}, names=["unique_id", "ds"]).rename("y")
XS = pd.concat({"a": X, "b": 2 * X}, names=["unique_id", "ds"])
STATIC = pd.DataFrame({"size": [3.0, 8.0], "kind": ["pump", "fan"]}, index=["a", "b"])


def known(**changes: object) -> XLSTMForecaster:
    return small(known_future=["promo"], calendar=["hour", "dayofweek"], **changes)


@pytest.fixture(scope="module")
def fitted() -> XLSTMForecaster:
    return known(max_steps=10).fit(Y, X)


@pytest.fixture(scope="module")
def pooled() -> XLSTMForecaster:
    return known().fit(PANEL, XS, static=STATIC)


@pytest.mark.parametrize("pieces", [(120, 160), (120, 121, 125, 160)])
def test_updates_forecast_as_one_pass_over_everything(pieces: tuple[int, ...]) -> None:
    forecaster = known().fit(Y[:120], X)
    for start, end in pairwise(pieces):
        forecaster.update(Y[start:end], X[start:end])
    expected = forecaster.predict(Y, X)
    pd.testing.assert_series_equal(forecaster.predict(X=X), expected)


def test_updates_of_counted_readings_go_by_their_own_rows() -> None:
    columns = X.to_numpy()
    forecaster = small(known_future=[1]).fit(ARRAY[:120], columns[:120])
    forecaster.update(ARRAY[120:], columns[120:160])
    expected = forecaster.predict(ARRAY, columns[:164])
    np.testing.assert_array_equal(forecaster.predict(X=columns[160:164]), expected)


def test_an_update_of_a_panel_takes_old_and_new_series(pooled: XLSTMForecaster) -> None:
    forecaster = known().fit(PANEL.drop(HOURLY[90:], level=1), XS, static=STATIC)
    new = pd.concat({"c": 7 * Y})
    columns = pd.concat([XS, pd.concat({"c": 3 * X})])
    later = pd.concat([PANEL.loc[["b"]].iloc[90:], new])
    forecaster.update(later, columns, static=pd.DataFrame({"size": 1, "kind": "fan"}, ["c"]))
    with pytest.raises(SeriesError, match="`X` is without series 'c'"):
        forecaster.predict(X=XS)
    forecast = forecaster.predict(X=columns)
    np.testing.assert_array_equal(
        forecast.loc[["b", "c"]],
        forecaster.predict(pd.concat([PANEL.loc[["b"]], new]), columns),
    )


def test_partial_fit_learns_with_columns(fitted: XLSTMForecaster) -> None:
    one, other = (known().fit(Y[:120], X).partial_fit(Y[120:], part) for part in (X, X[120:160]))
    pd.testing.assert_series_equal(one.predict(X=X), other.predict(X=X))
    third = known().fit(Y[:120], X).partial_fit(Y[120:], X.assign(promo=1 - X["promo"]))
    assert not third.predict(X=X).equals(one.predict(X=X))
    first = known(max_steps=10).partial_fit(Y, X)
    pd.testing.assert_series_equal(first.predict(X=X), fitted.predict(X=X))


def test_quantiles_and_intervals_take_columns(
    fitted: XLSTMForecaster, pooled: XLSTMForecaster
) -> None:
    for forecaster, y, columns in ((fitted, Y, X), (pooled, PANEL, XS)):
        quantiles = forecaster.predict_quantiles(X=columns)
        np.testing.assert_array_equal(quantiles[0.5], forecaster.predict(X=columns))
        pd.testing.assert_frame_equal(forecaster.predict_quantiles(y, columns), quantiles)
        bounds = forecaster.predict_interval(X=columns, coverage=0.5)
        pd.testing.assert_frame_equal(forecaster.predict_interval(y, columns, coverage=0.5), bounds)
        assert (bounds["lower"] <= bounds["upper"]).all()


def test_score_takes_columns() -> None:
    forecaster = known().fit(Y[:120], X)
    score = forecaster.score(Y[120:], X[120:160])
    assert score == pytest.approx(forecaster.score(Y[104:], X))  # its context before it
    assert score != forecaster.score(Y[120:], X.assign(promo=1 - X["promo"]))
    search = GridSearchCV(known(), {"learning_rate": [1e-3, 1e-2]}, cv=TimeSeriesSplit(2))
    search.fit(Y, X[:160])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def until(y: pd.Series, ends: dict[str, int]) -> pd.Series:
    """Return the readings of each series before its end."""
    if not isinstance(y.index, pd.MultiIndex):
        return y[: ends["a"]]
    return pd.concat({key: y.loc[key][:end] for key, end in ends.items()}, names=y.index.names)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_a_backtest_forecasts_as_predict_does(many: bool, refit: bool) -> None:
    y, columns, static = (PANEL, XS, STATIC) if many else (Y, X, None)
    result = backtest(known(), y, columns, static=static, n_windows=3, stride=5, refit=refit)
    lengths = {"a": 160, "b": 100} if many else {"a": 160}
    for window in range(3):
        first, now = (
            {key: length - 4 - 5 * back for key, length in lengths.items()}
            for back in (2, 2 - window)
        )
        forecaster = known().fit(until(y, now if refit else first), columns, static=static)
        expected = forecaster.predict_quantiles(until(y, now), columns)
        got = result.quantiles[window::3].reshape(-1, 3)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_backtest_does_not_see_past_columns_ahead() -> None:
    result = backtest(known(), Y, X, n_windows=1)
    changed = X.assign(temp=X["temp"].where(LATER.isin(HOURLY[:156]), 1e3))
    again = backtest(known(), Y, changed, n_windows=1)
    np.testing.assert_array_equal(again.quantiles, result.quantiles)
    other = X.assign(promo=X["promo"].where(LATER.isin(HOURLY[:156]), 5.0))
    assert (backtest(known(), Y, other, n_windows=1).quantiles != result.quantiles).any()


def test_past_columns_after_the_end_say_nothing(fitted: XLSTMForecaster) -> None:
    after = ~LATER.isin(HOURLY)
    changed = X.assign(temp=X["temp"].mask(after, 1e3))
    for y in (None, Y):
        pd.testing.assert_series_equal(fitted.predict(y, changed), fitted.predict(y, X))
    seen = X.assign(temp=X["temp"].mask(HOURLY[-1] == LATER, 1e3))
    assert (fitted.predict(Y, seen) != fitted.predict(Y, X)).all()


@pytest.mark.parametrize("step", range(8))
def test_a_known_row_acts_on_its_own_step(step: int, fitted: XLSTMForecaster) -> None:
    changed = X.assign(promo=X["promo"].mask(LATER[160 + step] == LATER, 3.0))
    for y in (None, Y):
        differs = fitted.predict(y, changed) != fitted.predict(y, X)
        assert differs.tolist() == [step == j for j in range(4)]


def test_the_hour_of_the_context_matters(fitted: XLSTMForecaster) -> None:
    shifted = [part.set_axis(part.index + pd.Timedelta("5h")) for part in (Y, X)]
    assert (fitted.predict(*shifted).to_numpy() != fitted.predict(Y, X).to_numpy()).all()


@pytest.mark.parametrize("many", [False, True])
def test_columns_are_saved(many: bool, tmp_path: Path) -> None:
    y, columns, static = (PANEL, XS, STATIC) if many else (Y, X, None)
    forecaster = known().fit(y, columns, static=static)
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    assert loaded.covariates_ == forecaster.covariates_
    assert tuple(loaded.known_future) == ("promo",)
    expected = forecaster.predict(X=columns)
    pd.testing.assert_series_equal(loaded.predict(X=columns), expected)
    pd.testing.assert_series_equal(loaded.predict(y, columns), expected)
    pd.testing.assert_frame_equal(
        loaded.predict_interval(X=columns, coverage=0.5),
        forecaster.predict_interval(X=columns, coverage=0.5),
        rtol=1e-5,
    )


def test_a_panel_with_columns_forecasts_each_series_alone(pooled: XLSTMForecaster) -> None:
    together = pooled.predict(PANEL, XS)
    for key in ("a", "b"):
        alone = pooled.predict(PANEL.loc[[key]], XS.loc[[key]])
        np.testing.assert_array_equal(alone, together.loc[[key]])


@pytest.mark.parametrize("many", [False, True])
def test_a_known_event_is_forecast(many: bool) -> None:
    """A promotion that comes at random adds four times the height of the wave."""
    rng = np.random.default_rng(3)
    index = pd.date_range("2024", periods=400, freq="h")
    promo = pd.Series((rng.random(400) < 0.15).astype(float), index, name="promo")
    wave = np.sin(np.arange(400) * np.pi / 4) + 0.1 * rng.standard_normal(400)
    y, columns = wave + 4 * promo, promo.to_frame()
    if many:
        y, columns = (pd.concat({"a": part, "b": part[150:]}) for part in (y, columns))
    options = {"max_steps": 100, "learning_rate": 2e-2, "patch_length": 1, "batch_size": 16}
    errors = [
        backtest(small(**options, known_future="all"), y, X).table()["MAE"].iloc[0]
        for X in (None, columns)
    ]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("counted", [False, True])
def test_a_picture_takes_columns(counted: bool) -> None:
    pytest.importorskip("matplotlib")
    y, columns = (ARRAY, X.to_numpy()) if counted else (Y, X)
    forecaster = small(known_future=["1"] if counted else ["promo"]).fit(y, columns[:160])
    expected = np.asarray(forecaster.predict_quantiles(X=columns[160:164])).reshape(4, 3)
    for context in (None, y):
        part = columns[160:164] if context is None else columns[:164]
        display = ForecastDisplay.from_estimator(forecaster, context, part)
        np.testing.assert_array_equal(display.quantiles, expected)
