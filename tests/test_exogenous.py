"""Columns beside the readings: every kind of object, by time and not by position."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import SeriesError, SeriesWarning

LATER = HOURLY.append(pd.date_range(HOURLY[-1], periods=9, freq="h")[1:])
RNG = np.random.default_rng(1)
X = pd.DataFrame(
    {"temp": RNG.normal(20, 5, 168), "promo": (RNG.random(168) < 0.2).astype(float)}, LATER
)
X.iloc[[3, 50], 0] = np.nan
Y = pd.Series(ARRAY, HOURLY, name="load")
PANEL = pd.concat({"a": Y, "b": 5 + Y[:100]}, names=["unique_id", "ds"]).rename("y")
XS = pd.concat({"b": 2 * X, "a": X}, names=["unique_id", "ds"])


def known(**changes: object) -> XLSTMForecaster:
    return small(known_future=["promo"], **changes)


@pytest.fixture(scope="module")
def fitted() -> XLSTMForecaster:
    return known().fit(Y, X)


@pytest.fixture(scope="module")
def pooled() -> XLSTMForecaster:
    return known().fit(PANEL, XS)


WIDE = {
    "exactly the times": (X[:160], X[160:164]),
    "more times": (X, X),
    "shuffled": (X.sample(frac=1, random_state=0), X[155:].iloc[::-1]),
    "another zone": (X.tz_convert("UTC"), X.tz_convert("UTC")),
    "columns in another order": (X[["promo", "temp"]].assign(more=1), X[["promo"]]),
    "other types": (X.astype({"promo": bool}), X.astype({"promo": bool, "temp": "Float32"})),
}


@pytest.mark.parametrize("kind", WIDE)
def test_rows_are_found_by_time(kind: str, fitted: XLSTMForecaster) -> None:
    past, ahead = WIDE[kind]
    forecaster = known().fit(Y, past.drop(columns="more", errors="ignore"))
    expected = fitted.predict(X=X)
    pd.testing.assert_series_equal(forecaster.predict(X=ahead), expected)
    pd.testing.assert_series_equal(fitted.predict(X=ahead), expected)
    # The whole series as a context is what the forecaster goes on from.
    both = pd.concat([past, ahead]).loc[lambda rows: ~rows.index.duplicated()]
    pd.testing.assert_series_equal(fitted.predict(Y, both), expected)


INDEXES = {
    "periods": pd.period_range("2024", periods=168, freq="D"),
    "counts": pd.RangeIndex(7, 343, 2),
    "integers": pd.Index(np.arange(168)),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_times_of_every_kind(kind: str) -> None:
    index = INDEXES[kind]
    y, columns = pd.Series(ARRAY, index[:160]), X.set_axis(index).iloc[::-1]
    forecast = known().fit(y, columns).predict(X=columns[:8])
    expected = known().fit(ARRAY, X[:160].set_axis(range(160))).predict(
        X=X[160:].set_axis(range(160, 168))
    )  # fmt: skip
    np.testing.assert_array_equal(forecast, expected)


@pytest.mark.parametrize("axes", [1, 2])
def test_rows_of_an_array_follow_those_of_the_readings(axes: int) -> None:
    columns = X["promo"] if axes == 1 else X
    names = ["0"] if axes == 1 else ["1"]
    framed = (columns.to_frame() if axes == 1 else columns).set_axis(range(axes), axis=1)
    forecaster = small(known_future=names).fit(Y, framed)
    array = small(known_future=[int(names[0])]).fit(Y, columns.to_numpy()[:160])
    expected = forecaster.predict(X=framed)
    pd.testing.assert_series_equal(array.predict(X=columns.to_numpy()[160:164]), expected)
    pd.testing.assert_series_equal(array.predict(Y, columns.to_numpy()[:164]), expected)
    masked = np.ma.masked_invalid(columns.to_numpy()[:164])
    pd.testing.assert_series_equal(array.predict(Y, masked), expected)


def test_a_series_is_one_column() -> None:
    by_name = known().fit(Y, X["promo"]).predict(X=X["promo"])
    pd.testing.assert_series_equal(known().fit(Y, X[["promo"]]).predict(X=X[["promo"]]), by_name)
    unnamed = X["promo"].rename(None)
    pd.testing.assert_series_equal(
        small(known_future="all").fit(Y, unnamed).predict(X=unnamed), by_name
    )


def long_form(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index()


@pytest.mark.parametrize("form", [long_form, lambda X: X.sample(frac=1, random_state=0)])
def test_a_panel_has_columns_by_series(form: object, pooled: XLSTMForecaster) -> None:
    columns = form(XS)
    forecaster, expected = known().fit(PANEL, columns), pooled.predict(X=XS)
    pd.testing.assert_series_equal(forecaster.predict(X=columns), expected)
    pd.testing.assert_series_equal(pooled.predict(PANEL, columns), expected)
    long = known().fit(PANEL.reset_index(), columns).predict(X=columns)
    np.testing.assert_array_equal(long["y"], expected)
    # Of one series only those of that one are looked at.
    one = pooled.predict(PANEL.loc[["b"]], columns)
    np.testing.assert_array_equal(one, expected.loc[["b"]])


def test_columns_of_a_long_frame_may_be_called_otherwise(pooled: XLSTMForecaster) -> None:
    names = {"unique_id": "shop", "ds": "day", "y": "sales"}
    y, columns = (part.reset_index().rename(columns=names) for part in (PANEL, XS))
    forecaster = known(id_column="shop", time_column="day", target_column="sales").fit(y, columns)
    np.testing.assert_array_equal(
        forecaster.predict(X=columns)["sales"], pooled.predict(X=XS)
    )  # fmt: skip


def test_an_array_of_three_axes_has_columns_by_series() -> None:
    y, columns = np.stack([ARRAY, 3 - ARRAY])[..., None], np.stack([X, 2 * X])
    forecaster = small(known_future=[1]).fit(y, columns[:, :160])
    forecast = forecaster.predict(X=columns[:, 160:164])
    np.testing.assert_array_equal(forecaster.predict(y, columns[:, :164]), forecast)
    keys = pd.MultiIndex.from_product((range(2), range(168)))
    framed = pd.DataFrame(columns.reshape(-1, 2), keys)
    np.testing.assert_array_equal(forecaster.predict(X=framed), forecast)
    with pytest.raises(SeriesError, match="`X` is an array of 1 series, `y` of 2"):
        forecaster.predict(X=columns[:1, 160:164])


@pytest.mark.parametrize(
    ("names", "past"),
    [
        ((), ["temp", "promo"]),
        ("promo", ["temp"]),
        (np.array(["promo", "temp"]), []),
        (["promo", "promo"], ["temp"]),
        ("all", []),
    ],
)
def test_some_columns_are_known_ahead(names: object, past: list[str]) -> None:
    forecaster = small(known_future=names).fit(Y, X)
    assert forecaster.covariates_.named("past") == past
    ahead = [name for name in X if name not in past]
    assert forecaster.covariates_.named("known") == ahead
    if not ahead:
        forecaster.predict()
        return
    with pytest.raises(SeriesError, match=f"missing: give {', '.join(ahead)} of the 4 times after"):
        forecaster.predict()
    with pytest.raises(SeriesError, match=r"give (temp, promo|promo, temp) of"):
        forecaster.predict(Y)
    forecaster.predict(X=X[ahead])


@pytest.mark.parametrize("names", ["price", ["promo", "price"], None, 3])
def test_names_that_are_no_columns_are_refused(names: object) -> None:
    with pytest.raises(
        ValueError, match=r"'price', which is no column of `X` \(temp, promo\)|sequence of names"
    ):
        small(known_future=names).fit(Y, X)
    with pytest.raises(ValueError, match=r"none is given|must be a sequence of names"):
        small(known_future=names).fit(Y)


FAULTS = {
    "none given": (None, "missing: give promo of the 4 times after the readings"),
    "no such column": (X[["temp"]], "no column promo; it has temp"),
    "too few times": (
        X[:162],
        r"lacks promo at 2 of the 4 times after the readings, first at 2024-04-04 19:00",
    ),
    "a time left out": (X.drop(LATER[161]), "lacks promo at 1 of the 4 times .*first at"),
    "other times": (X[:160], r"none of the times that are needed, 2024-04-04 .*it goes from 2024"),
    "other kind of times": (X.set_axis(range(168)), "none of the times .*it goes from 0 to 167"),
    "no zone": (X.tz_localize(None, ambiguous=True), "none of the times"),
    "array": (X.to_numpy()[:3], "no column promo; it has 0, 1"),
    "a time twice": (pd.concat([X, X[-8:]]), "has the time 2024-04-0.* more than once"),
    "infinite": (X.assign(promo=np.inf), "'promo' is inf at position 0"),
    "beyond float32": (X.assign(promo=-1e39), r"'promo' is -1e\+39 at position 0"),
    "text": (X.assign(promo="yes"), r"'promo' has dtype .*not real numbers.*X.pop\('promo'\)"),
    "empty": (X[:0], "`X` has no rows"),
    "by series": (XS, "not of one series, as `y` is"),
    "four axes": (np.zeros((1, 1, 1, 1)), "must be .* reshape"),
    "names twice": (pd.concat([X, X], axis=1), "more than one column named 'promo'"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_ahead_are_named(kind: str, fitted: XLSTMForecaster) -> None:
    columns, message = FAULTS[kind]
    with pytest.raises(SeriesError, match=message):
        fitted.predict(X=columns)
    if kind != "other times":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeriesWarning)
            with pytest.raises(SeriesError):
                fitted.predict(Y, columns)


def test_what_both_parts_lack_is_told_apart(fitted: XLSTMForecaster) -> None:
    with pytest.raises(
        SeriesError, match=r"temp, promo of each reading, and promo of the 4 times after them\."
    ):
        fitted.predict(Y)
    with pytest.raises(SeriesError, match=r"lacks promo at 4 of the 4 times"):
        fitted.predict(Y, X[:160])
    later = Y.set_axis(Y.index + pd.Timedelta(days=30))
    for use, y in (
        (fitted.score, Y),
        (fitted.update, later),
        (fitted.partial_fit, later),
        (known().fit, Y),
    ):
        with pytest.raises(
            (SeriesError, ValueError), match=r"temp, promo of each reading\.|none is"
        ):
            use(y)


def test_an_array_has_as_many_rows_as_there_are_times() -> None:
    forecaster = small(known_future=["1"]).fit(Y, X.to_numpy()[:160])
    with pytest.raises(SeriesError, match="has 3 rows, 4 are needed: from 2024-04-04"):
        forecaster.predict(X=X.to_numpy()[:3])
    with pytest.raises(SeriesError, match="has 160 rows, 164 are needed: from 2024-03-29"):
        forecaster.predict(Y, X.to_numpy()[:160])
    with pytest.raises(SeriesError, match="has 168 rows, 160 are needed"):
        small().fit(Y, X.to_numpy())


def test_columns_of_a_panel_are_of_its_series(pooled: XLSTMForecaster) -> None:
    with pytest.raises(SeriesError, match="`X` is without series 'a'"):
        pooled.predict(X=X)
    with pytest.raises(SeriesError, match="`X` is without series 'b'"):
        known().fit(PANEL, XS.loc[["a"]])
    with pytest.raises(SeriesError, match="`X` series `b` lacks promo at 2 of the 4 times"):
        pooled.predict(X=pd.concat([XS.loc[["a"]], XS.loc[["b"]].iloc[:102]]))
    both = XS.reset_index().assign(y=1.0)
    with pytest.raises(SeriesError, match=r"holds the readings, column 'y', .*drop\(columns='y'\)"):
        known().fit(PANEL, both)


def test_a_fit_without_columns_takes_none_later() -> None:
    forecaster = small().fit(Y)
    for use in (
        lambda: forecaster.predict(X=X),
        lambda: forecaster.predict(Y, X),
        lambda: forecaster.score(Y, X),
        lambda: forecaster.update(Y.set_axis(Y.index + pd.Timedelta(days=30)), X),
    ):
        with pytest.raises(SeriesError, match="`X` is given, but the fit had none"):
            use()


def test_times_that_are_left_out_are_missing() -> None:
    gap = X.drop(LATER[40:43])
    with pytest.warns(SeriesWarning, match="`X` leaves out 3 of 160 times"):
        forecaster = known().fit(Y, gap)
    full = known().fit(Y, gap.reindex(LATER))
    pd.testing.assert_series_equal(forecaster.predict(X=X), full.predict(X=X))
    # Readings that are left out keep their columns.
    with pytest.warns(SeriesWarning, match="`y` leaves out 3 stamps"):
        (one,) = known().fit(Y.drop(HOURLY[150:153]), X).context_
    np.testing.assert_array_equal(one.covariates, X.iloc[144:160])


def test_missing_values_may_stand_anywhere(fitted: XLSTMForecaster) -> None:
    silent = X.assign(promo=np.where(LATER.isin(HOURLY), X["promo"], np.nan))
    forecast = fitted.predict(X=silent)
    assert np.isfinite(forecast).all()
    pd.testing.assert_series_equal(fitted.predict(Y, silent), forecast)
    assert np.isfinite(fitted.predict(Y, X * np.nan)).all()


def test_a_column_without_a_value_to_train_on_is_refused() -> None:
    late = X.assign(temp=np.where(LATER.isin(HOURLY[:144]), np.nan, 1.0))
    with pytest.raises(SeriesError, match=r"`X` column 'temp' has no value .*to train on"):
        known().fit(Y, late)
    # Among many series it is enough that one has values.
    mixed = XS.assign(temp=XS["temp"].where(XS.index.get_level_values(0) == "a"))
    assert np.isfinite(known().fit(PANEL, mixed).predict(X=mixed)).all()


def test_a_column_that_never_changes_is_no_harm(fitted: XLSTMForecaster) -> None:
    forecaster = known().fit(Y, X.assign(temp=1e6))
    assert np.isfinite(forecaster.predict(Y, X.assign(temp=1e6 + 1))).all()
    assert fitted.model_.covariates.center.tolist()[1] == 0  # flags stay flags


def test_an_update_after_a_gap_takes_the_columns_of_the_gap() -> None:
    options = {"context_length": 40, "validation_fraction": 0}
    forecaster = known(**options).fit(Y[:120], X[:120])
    forecaster.update(Y[130:], X[120:160])
    gap = Y.copy()
    gap.iloc[120:130] = np.nan
    expected = forecaster.predict(gap, X)
    pd.testing.assert_series_equal(forecaster.predict(X=X[160:164]), expected, check_freq=False)


def test_a_context_of_another_zone_is_refused_by_the_calendar() -> None:
    forecaster = small(calendar=("hour",)).fit(Y)
    for other in (Y.tz_convert("UTC"), Y[:40].tz_localize(None)):
        for use in (forecaster.predict, forecaster.score):
            with pytest.raises(SeriesError, match="the calendar of the fit goes by Europe/Rome"):
                use(other)
