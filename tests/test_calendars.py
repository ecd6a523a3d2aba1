"""Fields of the calendar are those of pandas, at any time; hours have their minutes."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts.calendars import calendar_columns
from xlstm_ts.columns import PERIODS
from xlstm_ts.exceptions import SeriesError

# Leap years and a century that is none, the epoch, and steps that meet every minute of the hour.
TIMES = {
    "around the epoch": pd.date_range("1967-12-25 00:59", "1973-01-03", freq="97min"),
    "leap years": pd.date_range("1995-12-31 23:59:59.5", "2004-03-02", freq="601min"),
    "no leap year": pd.date_range("1899-12-30", "1901-03-01", freq="h"),
    "seconds": pd.date_range("1969-12-31 23:58", periods=300, freq="s", unit="s"),
}


# pandas 3.1 warns of its older names.
OTHER_NAMES = {"dayofweek": "day_of_week", "dayofyear": "day_of_year"}


def expected(times: pd.DatetimeIndex) -> np.ndarray:
    fields = {field: getattr(times, OTHER_NAMES.get(field, field)) for field in PERIODS}
    fields["hour"] = times.hour + times.minute / 60
    return np.stack(list(fields.values()), 1)


@pytest.mark.parametrize("kind", TIMES)
def test_fields_are_those_of_pandas(kind: str) -> None:
    got = calendar_columns(TIMES[kind].to_numpy(), list(PERIODS))
    np.testing.assert_allclose(got, expected(TIMES[kind]), rtol=1e-12)
    assert (got.max(0) - got.min(0) < list(PERIODS.values())).all()


def test_no_time_has_no_fields() -> None:
    times = np.array([["2024-02-29T12:30", "NaT"]], "M8[m]")
    both = calendar_columns(times, ["hour", "day"])
    np.testing.assert_array_equal(both, [[[12.5, 29], [np.nan, np.nan]]])
    assert calendar_columns(times, []).shape == (1, 2, 0)


INDEXES = {
    "summer time": HOURLY,
    "stamps": pd.date_range("2024-02-28", periods=160, freq="15min"),
    "working days": pd.date_range("1969-11-03", periods=160, freq="B"),
    "hours as periods": pd.period_range("2023-12-31 20:00", periods=160, freq="h"),
    "months as periods": pd.period_range("1960-01", periods=160, freq="M"),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_forecaster_sees_the_wall_clock_and_its_horizon(kind: str) -> None:
    index = INDEXES[kind]
    forecaster = small(calendar=list(PERIODS)).fit(pd.Series(ARRAY, index))
    (context,) = forecaster.context_
    table = forecaster.covariates_.table(context, ahead=4)
    times = context.index.append(forecaster.predict().index)
    start = times.to_timestamp() if isinstance(times, pd.PeriodIndex) else times
    np.testing.assert_array_equal(table, expected(start))


def test_a_field_may_be_named_alone_or_twice() -> None:
    y = pd.Series(ARRAY, HOURLY)
    forecasts = [
        small(calendar=fields).fit(y).predict() for fields in ("hour", ["hour"], ("hour", "hour"))
    ]
    for forecast in forecasts[1:]:
        pd.testing.assert_series_equal(forecast, forecasts[0])
    assert not small().fit(y).predict().equals(forecasts[0])


@pytest.mark.parametrize("fields", ["weekday", ["hour", "week"], 24, None])
def test_other_fields_are_refused(fields: object) -> None:
    with pytest.raises(ValueError, match=r"`calendar` must be (of minute, hour|a sequence)"):
        small(calendar=fields).fit(pd.Series(ARRAY, HOURLY))


def test_counts_have_no_calendar() -> None:
    with pytest.raises(SeriesError, match="`calendar` needs times"):
        small(calendar=["hour"]).fit(ARRAY)
    forecaster = small(calendar=["hour"]).fit(pd.Series(ARRAY, HOURLY))
    for use in (forecaster.predict, forecaster.score):
        with pytest.raises(SeriesError, match="`calendar` needs times"):
            use(ARRAY)
    later = pd.Series(ARRAY, HOURLY + pd.Timedelta("160h"))
    follows = small(calendar=["hour"]).fit(pd.Series(ARRAY, HOURLY)).update(later)
    # Readings that are counted follow on those that have times.
    np.testing.assert_array_equal(forecaster.update(ARRAY).predict(), follows.predict())
