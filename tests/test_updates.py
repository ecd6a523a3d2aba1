"""New readings: `update` takes them in, `partial_fit` also learns from them."""

import copy
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts.exceptions import SeriesError

SERIES = pd.Series(ARRAY, HOURLY, name="load")
INPUTS = {
    "array": ARRAY,
    "counts": pd.Series(ARRAY, np.arange(0, 320, 2)),
    "series": SERIES,
    "months": pd.Series(ARRAY, pd.period_range("2000", periods=160, freq="M")),
    "frame": pd.DataFrame({"a": SERIES, "b": -SERIES}),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("pieces", [(120, 160), (120, 121, 125, 160)])
def test_updates_forecast_as_one_pass_over_everything(kind: str, pieces: tuple[int, ...]) -> None:
    y = INPUTS[kind]
    forecaster = small().fit(y[:120])
    weights = copy.deepcopy(forecaster.model_.state_dict())
    for start, end in pairwise(pieces):
        assert forecaster.update(y[start:end]) is forecaster
    assert all(
        (weights[name] == part).all() for name, part in forecaster.model_.state_dict().items()
    )
    expected, got = forecaster.predict(y), forecaster.predict()
    if isinstance(y, np.ndarray):
        np.testing.assert_array_equal(got, expected)
    else:
        getattr(pd.testing, f"assert_{'frame' if kind == 'frame' else 'series'}_equal")(
            got, expected
        )


def test_times_between_are_missing() -> None:
    forecaster = small().fit(SERIES[:120]).update(SERIES[125:])
    gap = SERIES.copy()
    gap.iloc[120:125] = np.nan
    pd.testing.assert_series_equal(forecaster.predict(), forecaster.predict(gap))


def test_an_update_may_hold_nothing_but_gaps() -> None:
    forecaster = small().fit(ARRAY[:120]).update([np.nan] * 3)
    gap = np.append(ARRAY[:120], [np.nan] * 3)
    np.testing.assert_array_equal(forecaster.predict(), forecaster.predict(gap))


@pytest.mark.parametrize("start", [0, 119])
def test_what_is_known_is_not_taken_twice(start: int) -> None:
    forecaster = small().fit(SERIES[:120])
    before = forecaster.predict()
    with pytest.raises(SeriesError, match="give only those that came after"):
        forecaster.update(SERIES[start:])
    pd.testing.assert_series_equal(forecaster.predict(), before)


def test_times_off_the_grid_are_refused() -> None:
    shifted = SERIES[130:].set_axis(HOURLY[130:] + pd.Timedelta("20min"))
    with pytest.raises(SeriesError, match="no whole number of steps after"):
        small().fit(SERIES[:120]).update(shifted)


ANOTHER = {
    "unnamed": (pd.concat({"a": SERIES[:120]}), SERIES[120:], "one unnamed series, .* a panel"),
    "named": (SERIES[:120], pd.concat({"a": SERIES[120:]}), "a panel, .* one unnamed series"),
    "zone": (
        SERIES[:120],
        SERIES[120:].tz_convert("UTC"),
        "time zone UTC, what is known has Europe",
    ),
    "naive": (SERIES[:120], SERIES[120:].tz_localize(None), "time zone None"),
    "periods": (
        SERIES[:120].tz_convert("UTC").tz_localize(None),
        SERIES[120:].tz_convert("UTC").tz_localize(None).to_period("h"),
        r"convert it by y\.to_timestamp",
    ),
    "far": (SERIES[:120], SERIES[120:].shift(freq="80000D"), "gap of many times its length"),
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_readings_of_another_kind_are_refused(kind: str) -> None:
    known, new, message = ANOTHER[kind]
    forecaster = small().fit(known)
    with pytest.raises(SeriesError, match=message):
        forecaster.update(new)


def test_a_panel_takes_old_and_new_series() -> None:
    y = pd.concat({"a": SERIES, "b": 5 + SERIES}, names=["machine"])
    hour = y.index.get_level_values(1)
    forecaster = small().fit(y[hour < HOURLY[120]])
    later = pd.concat([y[hour >= HOURLY[120]].loc[["b"]], pd.concat({"c": SERIES})])
    forecaster.update(later)
    forecast = forecaster.predict()
    starts = [forecast.loc[key].index[0] for key in "abc"]
    assert starts == [HOURLY[120], HOURLY[159] + HOURLY.freq, HOURLY[159] + HOURLY.freq]
    pd.testing.assert_series_equal(
        forecast.loc["b"], forecaster.predict(y.loc[["b"]]).loc["b"], check_freq=False
    )


def test_partial_fit_follows_a_change() -> None:
    rng = np.random.default_rng(0)

    def wave(length: int, period: int) -> np.ndarray:
        return np.sin(np.arange(length) * 2 * np.pi / period) + 0.05 * rng.standard_normal(length)

    forecaster = small(max_steps=200, learning_rate=1e-2, patch_length=1).fit(wave(400, 8))
    drifted, future = wave(460, 5)[:400], wave(460, 5)
    errors = []
    for learn in ("update", "partial_fit"):
        getattr(forecaster, learn)(drifted)
        origins = range(400, 456)
        guesses = [forecaster.predict(future[:origin]) for origin in origins]
        truth = [future[origin : origin + 4] for origin in origins]
        errors.append(np.abs(np.array(guesses) - truth).mean())
    assert errors[1] < 0.7 * errors[0]


def test_partial_fit_repeats_and_leaves_a_failed_fit_alone() -> None:
    one, other = (small().fit(ARRAY[:120]).partial_fit(ARRAY[120:]) for _ in range(2))
    np.testing.assert_array_equal(one.predict(), other.predict())
    assert len(one.history_) > len(small().fit(ARRAY[:120]).history_)
    fresh = small().partial_fit(ARRAY)
    np.testing.assert_array_equal(fresh.predict(), small().fit(ARRAY).predict())
    before = one.predict()
    with pytest.raises(SeriesError):
        one.partial_fit([np.inf])
    np.testing.assert_array_equal(one.predict(), before)
