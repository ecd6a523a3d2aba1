"""What comes in is checked once; what goes out is the same kind of object, continued in time."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import read_panel
from xlstm_ts.panels import LongColumns
from xlstm_ts.seasons import season_length

HOURS = pd.date_range("2024-01-01", periods=50, freq="h")
RNG = np.random.default_rng(0)


def stepless(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(index.to_numpy()) if index.tz is None else pd.DatetimeIndex(list(index))


INPUTS = {
    "list": [1.0, 2.0, np.nan],
    "1-D": np.arange(9.0),
    "2-D": np.arange(8).reshape(4, 2),
    "bool": np.array([True, False]),
    "series": pd.Series(np.arange(50.0), stepless(HOURS), name="load"),
    "nullable": pd.Series([1, None, 3], dtype="Int64"),
    "frame": pd.DataFrame({"a": np.arange(50), "b": 1.5}, index=stepless(HOURS)),
    "summer time": pd.Series(
        np.arange(60.0),
        stepless(pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Rome")),
    ),
    "months": pd.Series(np.arange(30.0), stepless(pd.date_range("2020", periods=30, freq="MS"))),
    "periods": pd.Series(np.arange(30.0), pd.period_range("2020", periods=30, freq="M")),
    "double months": pd.Series(np.arange(9.0), pd.period_range("2020", periods=9, freq="2M")),
    "counted": pd.Series(np.arange(5.0), index=[10, 12, 14, 16, 18]),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_same_kind_comes_back_and_time_goes_on(kind: str) -> None:
    y = INPUTS[kind]
    panel = read_panel(y)
    forecast = np.arange(4 * len(panel.channels), dtype=float).reshape(4, -1)
    restored = panel.restore([forecast])
    if not isinstance(y, pd.Series | pd.DataFrame):
        assert isinstance(restored, np.ndarray)
        assert restored.shape == (4, *np.shape(y)[1:])
        return
    assert type(restored) is type(y)
    both = pd.concat([y, restored])
    again = read_panel(both)  # one index with one step: the forecast follows without a gap
    assert len(again.longest) == len(y) + 4
    assert again.step == panel.step
    np.testing.assert_array_equal(again.longest.values[-4:], forecast)


FAULTS = {
    "empty": (np.empty(0), "no readings"),
    "four axes": (np.zeros((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\); reshape"),
    "text": (pd.Series(["1", "2"], name="load"), "'load' has dtype .*to_numeric"),
    "names of series": (
        pd.DataFrame({"shop": ["a", "a"], "sold": [1, 2]}),
        r"y.pop\('shop'\)\); .*name .*id_column, time_column and target_column",
    ),
    "complex": (np.array([1j, 2]), "dtype complex128"),
    "infinite": (pd.DataFrame({"a": [1, 2], "b": [1, np.inf]}), "'b' is inf at position 1"),
    "beyond float32": (
        pd.DataFrame({"a": [1, 2], "b": [1, -1e39]}),
        r"'b' is -1e\+39 at position 1 \(1\); .*float32",
    ),
    "silent": (pd.DataFrame({"a": [1, 2], "b": [np.nan, np.nan]}), "'b' has no reading"),
    "same names": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
    "twice": (pd.Series(1.0, HOURS[[0, 1, 1, 2]]), r"again at position 2; .*duplicated"),
    "backwards": (pd.Series(1.0, HOURS[[0, 2, 1]]), r"position 2 .*sort_index"),
    "off the grid": (pd.Series(1.0, [0, 2, 4, 5]), "5 at position 3, expected 6"),
    "far future": (
        pd.Series(1.0, HOURS.append(pd.DatetimeIndex(["2200-01-01"]))),
        "gap of .* before position 50 .*correct the time",
    ),
    "far count": (pd.Series(1.0, [0, 1, 2, 10**9]), "1000000000 at position 3"),
    "names as index": (pd.Series([1.0, 2.0], ["a", "b"]), "to_datetime"),
    "durations as index": (
        pd.Series(1.0, pd.to_timedelta([0, 1], unit="h")),
        r"index of timedelta64.*; add the time of the start, .*reset_index\(drop=True\)",
    ),
    "floats as index": (pd.Series(1.0, [0.0, 1.0]), r"index of float64.*; use .*astype\(int\)"),
    "long with more": (
        pd.DataFrame({"unique_id": "a", "ds": HOURS, "y": 1.0, "price": 2.0}),
        "no known role: price",
    ),
    "long without a series": (
        pd.DataFrame({"unique_id": ["a", None], "ds": HOURS[:2], "y": 1.0}),
        "no 'unique_id' at position 1",
    ),
    "long with text as time": (
        pd.DataFrame({"unique_id": "a", "ds": ["2024-01-01"], "y": 1.0}),
        r"column 'ds' has dtype .*y\['ds'\] = pandas.to_datetime",
    ),
    "time in the first level": (
        pd.concat({"a": pd.Series(1.0, HOURS)}).swaplevel(),
        "time in level 0 of its index; make it the last",
    ),
    "lists of two lengths": (
        [[1.0, 2.0], [3.0]],
        r"several series put them together by pandas\.concat",
    ),
    "mapping": ({"a": [1.0]}, "is a mapping; put them together"),
    "periods off their grid": (
        pd.Series(1.0, pd.PeriodIndex(["2024-01-01 00:00", "2024-01-01 04:00"], freq="3h")),
        "2024-01-01 04:00 at position 1 is no whole number of steps of 3h",
    ),
    "far period": (
        pd.Series(1.0, pd.PeriodIndex(["2024-01-01", "3024-01-01"], freq="s")),
        "gap .* before position 1 .*correct the time",
    ),
    "no key": (
        pd.concat(
            [pd.concat({"a": pd.Series(1.0, HOURS)}), pd.concat({np.nan: pd.Series(1.0, HOURS)})]
        ),
        "has no key at position 50; name the series",
    ),
    "tuple as key": (
        pd.DataFrame({"unique_id": [("p", "a")] * 2, "ds": HOURS[:2], "y": 1.0}),
        r"key \('p', 'a'\) of a series; use text or integers",
    ),
    "one of many": (
        pd.concat({"a": pd.Series(1.0, HOURS), "b": pd.Series(1.0, HOURS[[0, 1, 1]])}),
        "`y` series `b` has the time .* again at position 2",
    ),
    "two steps": (
        pd.concat({"a": pd.Series(1.0, HOURS), "b": pd.Series(1.0, HOURS[::2])}),
        "`y` series `b` has a step of 2h, the model was trained on one of h",
    ),
    "dates as column": (
        pd.DataFrame({"date": HOURS, "load": 1.0}),
        r"'date' has dtype datetime64.*set_index\('date'\)",
    ),
    "dates as text": (pd.DataFrame({"date": ["2024-01-01"], "load": 1.0}), r"y\.pop\('date'\)"),
    "durations": (pd.Series(HOURS - HOURS[0]), r"total_seconds"),
    "no time": (pd.Series(1.0, pd.DatetimeIndex(["2024", None])), "no time at position 1"),
    "one reading": (pd.Series(1.0, stepless(HOURS[:1])), "step is unknown"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_cure(fault: str) -> None:
    y, message = FAULTS[fault]
    with pytest.raises(SeriesError, match=message) as caught:
        read_panel(y)
    assert isinstance(caught.value, ValueError)


def timed(freq: str, *, start: str = "2024-01-01", periods: int = 5) -> pd.Series:
    return pd.Series(np.arange(float(periods)), pd.date_range(start, periods=periods, freq=freq))


@pytest.mark.parametrize(
    ("freq", "trained", "step"),
    [
        ("60min", "h", "60min"),
        ("24h", "D", "24h"),
        ("W-MON", "W-SUN", "W-MON"),
        ("ME", "MS", "ME"),
        ("QS-FEB", "QE", "QS-FEB"),
        ("D", "B", "B"),  # Monday to Friday is both
    ],
)
def test_one_step_has_many_names(freq: str, trained: str, step: str) -> None:
    assert read_panel(timed(freq), known=read_panel(timed(trained))).step == step


@pytest.mark.parametrize(
    ("given", "trained"),
    [
        (timed("5min"), timed("h")),
        (timed("5min", periods=1), timed("h")),
        (timed("D", periods=8), timed("B")),
        (timed("MS"), timed("QS")),
        (timed("2MS"), timed("MS")),
        (timed("h"), INPUTS["periods"]),
        (INPUTS["periods"], timed("h")),
    ],
)
def test_another_step_is_refused(given: pd.Series, trained: pd.Series) -> None:
    known = read_panel(trained)
    step = read_panel(given).step
    message = f"`y` has a step of {step}, the model was trained on one of {known.step}"
    with pytest.raises(SeriesError, match=message):
        read_panel(given, known=known)


def test_a_step_is_compared_only_where_there_are_two() -> None:
    counted, hourly = INPUTS["counted"], timed("h")
    assert read_panel(counted, known=read_panel(hourly)).step is None
    assert read_panel(hourly, known=read_panel(counted)).step == "h"
    months = read_panel(INPUTS["periods"], known=read_panel(timed("MS")))
    assert isinstance(months.longest.index, pd.PeriodIndex)
    one = read_panel(pd.Series([1.0], stepless(HOURS[:1])), known=read_panel(hourly))
    assert one.step == "h"


def panel_of(**series: pd.Series) -> pd.Series:
    return pd.concat(series, names=["machine", "time"])


RAGGED = panel_of(a=pd.Series(np.arange(50.0), HOURS), b=pd.Series([1, np.nan, 3.0], HOURS[9:12]))


def as_long(y: pd.Series) -> pd.DataFrame:
    return y.rename("y").rename_axis(["unique_id", "ds"]).reset_index()


PANELS = {
    "series": RAGGED,
    "time first": RAGGED.sort_index(level=1, kind="stable"),
    "frame": pd.DataFrame({"u": RAGGED, "v": -RAGGED}),
    "two levels": pd.concat({"hall": RAGGED}, names=["hall"]),
    "long": as_long(RAGGED),
}


@pytest.mark.parametrize("kind", PANELS)
def test_panels_come_back_as_they_came(kind: str) -> None:
    y = PANELS[kind]
    panel = read_panel(y)
    assert [len(one) for one in panel] == [50, 3]
    assert not panel.is_single
    forecasts = [np.full((2, len(panel.channels)), float(j)) for j in range(2)]
    restored = panel.restore(forecasts)
    assert type(restored) is type(y)
    again = read_panel(pd.concat([y, restored]))
    assert list(again.series) == list(panel.series)
    for one, before, forecast in zip(again, panel, forecasts, strict=True):
        assert len(one) == len(before) + 2
        np.testing.assert_array_equal(one.values[-2:], forecast)
    levels = panel.restore_quantiles([np.ones((2, len(panel.channels), 3))] * 2, (0.1, 0.5, 0.9))
    assert len(levels) == 4
    assert list(levels.columns)[-3:] == (
        [("v", 0.1), ("v", 0.5), ("v", 0.9)] if kind == "frame" else [0.1, 0.5, 0.9]
    )


def test_arrays_of_many_series() -> None:
    panel = read_panel(np.arange(24.0).reshape(3, 4, 2))
    assert [one.values[0, 0] for one in panel] == [0, 8, 16]
    assert panel.restore([np.zeros((5, 2))] * 3).shape == (3, 5, 2)


def test_columns_of_a_long_frame_have_other_names() -> None:
    y = as_long(RAGGED).set_axis(["shop", "day", "sales"], axis=1)
    panel = read_panel(y, long=LongColumns("shop", "day", "sales"))
    restored = panel.restore([np.zeros((2, 1))] * 2)
    assert list(restored.columns) == ["shop", "day", "sales"]


GAPS = {
    "hours": (pd.Series(1.0, HOURS.delete(7)), 1, 50),
    "counts": (pd.Series(1.0, [0, 1, 2, 5]), 2, 6),
    "months": (pd.Series(1.0, pd.PeriodIndex(["2020-01", "2020-02", "2020-06"], freq="M")), 3, 6),
    "one of many": (panel_of(a=pd.Series(1.0, HOURS), b=pd.Series(1.0, HOURS[[0, 1, 9]])), 7, 50),
}


@pytest.mark.parametrize("kind", GAPS)
def test_stamps_left_out_are_missing_readings(kind: str) -> None:
    y, missing, length = GAPS[kind]
    with pytest.warns(SeriesWarning, match=f"leaves out {missing} stamps"):
        panel = read_panel(y)
    assert len(panel.longest) == length
    assert sum(np.isnan(one.values).sum() for one in panel) == missing
    assert sum(np.nansum(one.values) for one in panel) == y.sum()


def test_gaps_are_filled_at_the_known_step() -> None:
    sparse = pd.Series(1.0, HOURS[[0, 2, 5, 8, 10]])
    with pytest.warns(SeriesWarning, match="6 stamps at its step of h"):
        assert len(read_panel(sparse, known=read_panel(timed("h"))).longest) == 11


def test_real_file_with_a_stamp_twice(data_home: Path) -> None:
    weather = pd.read_csv(data_home / "weather" / "weather.csv", encoding="latin-1", index_col=0)
    weather.index = pd.to_datetime(weather.index)
    with pytest.raises(SeriesError, match="2020-05-12 06:00:00 more than once"):
        read_panel(weather)


DAYS = pd.date_range("2024-01-01", periods=60)
WORKDAYS = DAYS[DAYS.day_of_week < 5]
MONTHS = pd.date_range("2024-01-01", periods=30, freq="MS")
JITTER = pd.to_timedelta(RNG.integers(-9, 10, 50), unit="s")
ROME = pd.date_range("2024-03-20", periods=30, tz="Europe/Rome")
ACROSS = stepless(pd.date_range("2024-03-30 02:00", periods=60, freq="h", tz="Europe/Rome"))
ON_A_GRID = {
    "gap": (HOURS.delete(7), "h"),
    "most of a year": (HOURS.append(HOURS + pd.Timedelta("300D")), "h"),
    "rarely an hour": (HOURS[[0, 2, 3, 5, 7, 9]], "h"),
    "holiday": (WORKDAYS.delete(8), "B"),
    "summer time": (stepless(ROME.delete(5)), "D"),
    "week": (DAYS[::7].delete(3), "W-MON"),
    "month": (MONTHS.delete(3), "MS"),
    "end of month": (pd.date_range("2024", periods=9, freq="ME").delete(3), "ME"),
    "every other day": (DAYS[::2].delete(5), "48h"),
    "quarter": (MONTHS[::3].delete(3), "QS-JAN"),
    "hour across spring": (ACROSS.delete(9), "h"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ON_A_GRID)
def test_step_of_stamps_with_gaps(kind: str) -> None:
    index, step = ON_A_GRID[kind]
    y = pd.Series(np.arange(1.0, len(index) + 1), index)
    with pytest.warns(SeriesWarning):
        panel = read_panel(y)
    assert panel.step == step or {panel.step, step} == {"2D", "48h"}  # of pandas 2 and 3
    assert np.nansum(panel.longest.values) == y.sum()
    assert panel.longest.index[0] == index[0]
    assert panel.longest.index[-1] == index[-1]


IRREGULAR = {
    "middle of month": (MONTHS + pd.Timedelta("14D"), "to_period('M')"),
    "middle of quarter": (MONTHS[::3] + pd.Timedelta("14D"), "to_period('Q')"),
    "jitter": (HOURS + JITTER, "round('1h')"),
    "jitter abroad": ((HOURS + JITTER).tz_localize("Europe/Rome"), "round('1h')"),
    "jitter across months": (MONTHS.delete(9) + 3600 * JITTER[:29], "resample('MS').mean()"),
    "any time": (HOURS[0] + pd.to_timedelta([0, 9, 20, 3600, 7230], unit="s"), "resample("),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_cure_of_an_irregular_index_works(kind: str) -> None:
    index, cure = IRREGULAR[kind]
    y = pd.Series(np.arange(1.0, len(index) + 1), index)
    with pytest.raises(SeriesError, match="irregular index") as caught:
        read_panel(y)
    message = str(caught.value)
    assert cure in message
    cures = re.findall(r"y(?:\.index = y\.index)?\.\w+\('[\w-]+'\)(?:\.mean\(\))?", message)
    assert cures
    for text in cures:
        if text.startswith("y.index"):
            cured = y.set_axis(eval(text.partition("= ")[2], {"y": y}))
        else:
            cured = eval(text, {"y": y})
        kept = read_panel(cured).longest.values
        assert "resample" in text or np.nansum(kept) == y.sum()


@pytest.mark.parametrize("dtype", [float, int])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_masked_readings_are_missing(dtype: type, shape: tuple[int, ...]) -> None:
    readings = np.array([1, -999, 3, -999], dtype).reshape(shape)
    y = np.ma.masked_equal(readings, -999)
    np.testing.assert_array_equal(read_panel(y).longest.values[:, 0], [1, np.nan, 3, np.nan])
    assert readings[1] == -999  # what was given is not changed


def test_masked_text_is_no_number() -> None:
    with pytest.raises(SeriesError, match="not real numbers"):
        read_panel(np.ma.masked_equal(np.array(["1", "2"]), "1"))


@pytest.mark.parametrize(
    ("freq", "season"),
    [("h", 24), ("15min", 96), ("5min", 12), ("s", 60), ("D", 7), ("MS", 12), ("QS", 4), ("YS", 1)],
)
def test_season_of_the_step(freq: str, season: int) -> None:
    index = pd.date_range("2020", periods=30, freq=freq)
    assert season_length(read_panel(pd.Series(np.arange(30.0), index))) == season


def test_season_of_counted_readings() -> None:
    time = np.arange(600)
    noise = RNG.standard_normal(600)
    assert season_length(read_panel(np.sin(time * np.pi / 12) + 0.3 * noise)) == 24
    assert season_length(read_panel(noise)) == 1
    assert season_length(read_panel(np.ones(3))) == 1


def test_times_that_do_not_exist_are_an_error_with_a_cure() -> None:
    index = pd.date_range("2024-03-01 02:30", periods=29, freq="D", tz="Europe/Rome")
    panel = read_panel(pd.Series(1.0, index))
    with pytest.raises(SeriesError, match=r"summer time .*tz_convert\('UTC'\)"):
        panel.restore([np.zeros((5, 1))])
