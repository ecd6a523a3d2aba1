"""What is said of each series: numbers and categories, once a series."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts.exceptions import SeriesError, SeriesWarning

SERIES = pd.Series(ARRAY, HOURLY, name="y")
PANEL = pd.concat({"a": SERIES, "b": 5 + SERIES[:100], "c": -SERIES}, names=["unique_id", "ds"])
STATIC = pd.DataFrame(
    {"size": [3.0, 8.0, np.nan], "kind": ["pump", "fan", "pump"], "old": [True, False, True]},
    index=["a", "b", "c"],
)
NEW = pd.concat({"d": 7 * SERIES})


def fitted_columns(static: pd.DataFrame) -> list[tuple[str, str | None]]:
    forecaster = small(max_steps=1).fit(PANEL, static=static)
    return [(column.name, column.category) for column in forecaster.covariates_.columns]


def test_numbers_stay_and_categories_become_marks() -> None:
    forecaster = small().fit(PANEL, static=STATIC)
    assert fitted_columns(STATIC) == [
        ("size", None), ("kind", "fan"), ("kind", "pump"), ("old", None),
    ]  # fmt: skip
    rows = [one.static for one in forecaster.context_]
    np.testing.assert_array_equal(rows, [[3, 0, 1, 1], [8, 1, 0, 0], [np.nan, 0, 1, 1]])
    table = forecaster.covariates_.table(forecaster.context_.series["b"], ahead=4)
    np.testing.assert_array_equal(table, np.tile([8.0, 1, 0, 0], (20, 1)))


FORMS = {
    "column of keys": STATIC.rename_axis("unique_id").reset_index(),
    "other order, more series": pd.concat([STATIC, STATIC.loc[["a"]].set_axis(["z"])]).iloc[::-1],
    "nullable": STATIC.convert_dtypes(),
    "categorical": STATIC.astype({"kind": "category"}),
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_of_one_table_are_alike(kind: str) -> None:
    expected = small().fit(PANEL, static=STATIC).predict()
    pd.testing.assert_series_equal(small().fit(PANEL, static=FORMS[kind]).predict(), expected)
    long = PANEL.reset_index()
    forecast = small().fit(long, static=FORMS[kind]).predict()
    np.testing.assert_array_equal(forecast["y"], expected)


def test_keys_are_those_of_the_series() -> None:
    table = STATIC[["size", "kind"]]
    for y, keys in (
        (pd.concat({7: PANEL}, names=["hall"]), [(7, key) for key in "abc"]),
        (np.stack([ARRAY[:, None]] * 3), [0, 1, 2]),
    ):
        index = pd.MultiIndex.from_tuples(keys) if isinstance(keys[0], tuple) else keys
        forecaster = small(max_steps=1).fit(y, static=table.set_axis(index))
        assert [one.static[0] for one in forecaster.context_][:2] == [3, 8]


def test_it_matters_and_is_remembered() -> None:
    forecaster = small().fit(PANEL, static=STATIC)
    before = forecaster.predict()
    pd.testing.assert_series_equal(forecaster.predict(PANEL), before)  # as said in the fit
    assert not small().fit(PANEL).predict().equals(before)
    other = STATIC.assign(size=[30, 8, 1])
    changed = (forecaster.predict(static=other) != before).groupby(level=0).any()
    assert changed.to_dict() == {"a": True, "b": False, "c": True}
    pd.testing.assert_series_equal(forecaster.predict(), before)


def test_series_that_were_never_seen_say_theirs() -> None:
    forecaster = small().fit(PANEL, static=STATIC)
    with pytest.raises(SeriesError, match="missing for series 'd': give size, kind, old"):
        forecaster.predict(NEW)
    with pytest.raises(SeriesError, match="missing for series 'd'"):
        forecaster.update(NEW, static=STATIC)
    known = STATIC.loc[["a"]].set_axis(["d"])
    forecast = forecaster.predict(NEW, static=known)
    odd = known.assign(kind="compressor")
    with pytest.warns(SeriesWarning, match=r"'kind' of series 'd' is 'compressor', .*fan, pump"):
        assert not forecaster.predict(NEW, static=odd).equals(forecast)
    forecaster.predict(NEW, static=known.assign(kind=None))  # not known is no other category
    forecaster.update(NEW, static=known)
    np.testing.assert_array_equal(forecaster.predict().loc["d"], forecast)


FAULTS = {
    "no frame": (STATIC["size"], "must be a DataFrame"),
    "no columns": (STATIC[[]], "must be a DataFrame"),
    "twice": (pd.concat([STATIC, STATIC.loc[["b"]]]), "more than one row for series 'b'"),
    "a series is missing": (STATIC.iloc[:2], "missing for series 'c'; give it a row"),
    "infinite": (STATIC.assign(size=[1, np.inf, 2]), "'size' of series 'b' is inf, not a finite"),
    "empty numbers": (STATIC.assign(size=np.nan), "'size' has no value"),
    "empty categories": (STATIC.assign(kind=None), "'kind' has no value"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_named(kind: str) -> None:
    static, message = FAULTS[kind]
    with pytest.raises(SeriesError, match=message):
        small().fit(PANEL, static=static)


def test_what_does_not_go_with_the_fit_is_refused() -> None:
    forecaster = small().fit(PANEL, static=STATIC)
    with pytest.raises(SeriesError, match="no column 'kind'"):
        forecaster.predict(PANEL, static=STATIC[["size", "old"]])
    with pytest.raises(SeriesError, match="'size' of series 'a' is big, not a finite number"):
        forecaster.predict(PANEL, static=STATIC.assign(size="big"))
    with pytest.raises(SeriesError, match=r"single one; name it by pandas\.concat"):
        forecaster.predict(SERIES)
    for single in (lambda: small().fit(SERIES, static=STATIC), lambda: forecaster.predict(
        SERIES, static=STATIC
    )):  # fmt: skip
        with pytest.raises(SeriesError, match="single one; leave it out"):
            single()
    with pytest.raises(SeriesError, match="`static` is given, but the fit had none"):
        small().fit(PANEL).predict(static=STATIC)


def test_categories_that_are_numbers_stay_categories() -> None:
    static = pd.DataFrame(
        {"kind": pd.Categorical([1, 2, 1]), "size": [1.0, 2.0, 3.0]}, index=STATIC.index
    )
    forecaster = small().fit(PANEL, static=static)
    rows = [one.static.tolist() for one in forecaster.context_]
    assert rows == [[1, 0, 1], [0, 1, 2], [1, 0, 3]]


def test_a_column_of_one_name_twice_is_refused() -> None:
    twice = pd.concat([STATIC, STATIC[["size"]]], axis=1)
    with pytest.raises(SeriesError, match="more than one column named 'size'"):
        small().fit(PANEL, static=twice)
