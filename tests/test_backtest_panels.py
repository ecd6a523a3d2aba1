"""Many series are judged as one is: each from its own origins, by one model, in its own words."""

import io
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import BacktestDisplay, ResidualsDisplay, XLSTMForecaster, backtest, metrics
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.results import Backtest


def load(start: int, end: int, *, level: float = 0) -> pd.Series:
    values = ARRAY[start:end] + level
    values[[5, 20, -3]] = np.nan
    return pd.Series(values, HOURLY[start:end])


PARTS = {"a": load(0, 160), "b": load(10, 130, level=5000), "c": load(40, 100, level=-70)}
PANEL = pd.concat(PARTS, names=["machine"]).rename("load")
WIDE = pd.DataFrame({"u": PANEL, 3: 2 * PANEL})
LONG = pd.DataFrame(
    {
        "unit": PANEL.index.get_level_values(0),
        "when": PANEL.index.get_level_values(1),
        "load": PANEL.to_numpy(),
    }
)
NAMES = {"id_column": "unit", "time_column": "when", "target_column": "load"}
KINDS = {
    "series": PANEL,
    "wide": WIDE,
    "long": LONG,
    "two levels": pd.concat({7: PANEL}, names=["hall"]),
    "periods": pd.concat(
        {
            key: one.set_axis(pd.period_range("2020", periods=len(one), freq="h", name="time"))
            for key, one in PARTS.items()
        },
        names=["machine"],
    ),
    "one": pd.concat({"a": PARTS["a"]}),
    "3-D": np.stack([np.stack([ARRAY, -ARRAY], 1), np.stack([ARRAY + 9, ARRAY], 1)]),
}


def forecaster(**changes: object) -> XLSTMForecaster:
    return small(**NAMES | changes)


def known(y: object, keep: dict[object, int]) -> object:
    """Return the first readings of each series, so many of each."""
    if isinstance(y, np.ndarray):
        return y[:, : next(iter(keep.values()))]
    seen: Counter[object] = Counter()
    rows = []
    for key in y["unit"] if "unit" in y else y.index.droplevel(-1):
        rows.append(seen[key] < keep[key])
        seen[key] += 1
    return y[rows]


@pytest.fixture(scope="module")
def result() -> Backtest:
    return backtest(forecaster(), WIDE, n_windows=3, stride=5)


@pytest.mark.parametrize(
    ("kind", "refit"), [*((kind, False) for kind in KINDS), ("wide", True), ("long", True)]
)
def test_forecasts_as_the_estimator_does(kind: str, refit: bool) -> None:
    y = KINDS[kind]
    result = backtest(forecaster(), y, n_windows=3, stride=5, refit=refit)
    ends = {key: len(one) - 4 for key, one in result.panel.series.items()}
    fits = [
        forecaster().fit(known(y, {key: end - 5 * later for key, end in ends.items()}))
        for later in (2, 1, 0)
    ]
    for window in range(3):
        context = known(y, {key: end - 5 * (2 - window) for key, end in ends.items()})
        expected = fits[window if refit else 0].predict_quantiles(context)
        if kind == "3-D":
            got = result.quantiles[window::3]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
            continue
        rows = 4 * np.arange(window, len(result.origins), 3)[:, None] + np.arange(4)
        got = result.frame().iloc[rows.ravel()]
        got = (
            got.drop(columns="origin").reset_index(drop=True)
            if kind == "long"
            else got.droplevel("origin")
        )
        pd.testing.assert_frame_equal(got, expected, rtol=1e-4, atol=1e-4, check_freq=False)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_labelled_as_what_came(kind: str) -> None:
    y = KINDS[kind]
    result = backtest(forecaster(max_steps=1), y, n_windows=2)
    frame = result.frame()
    assert len(frame) == len(result.origins) * 4
    if kind == "long":
        assert list(frame) == ["unit", "origin", "when", 0.1, 0.5, 0.9]
        readings = LONG.set_index(["unit", "when"])["load"]
        came = readings.loc[pd.MultiIndex.from_frame(frame[["unit", "when"]])].to_numpy()
        origins = frame["origin"]
    else:
        origins = frame.index.get_level_values("origin")
        if kind == "3-D":
            assert frame.index.names == [None, "origin", None]
            assert frame.columns.tolist()[0] == ("0", 0.1)
            came = np.stack([y[key, row] for key, _, row in frame.index])
        else:
            names = list(y.index.names)
            assert frame.index.names == [*names[:-1], "origin", names[-1]]
            came = y.loc[frame.index.droplevel("origin")].to_numpy()
    np.testing.assert_array_equal(came.reshape(result.truth.shape), result.truth)
    np.testing.assert_array_equal(origins[::4], result.times)


@pytest.mark.parametrize("kind", ["array", "series", "frame"])
def test_frames_of_one_series(kind: str) -> None:
    one = PARTS["a"].rename_axis("time")
    y = {"array": ARRAY, "series": one, "frame": pd.DataFrame({3: one, "b": one})}[kind]
    result = backtest(small(), y, n_windows=2)
    frame = result.frame()
    assert frame.index.names == ["origin", None if kind == "array" else "time"]
    for row, origin in enumerate(result.times):
        np.testing.assert_array_equal(frame.loc[origin], result.quantiles[row].reshape(4, -1))
        assert frame.loc[origin].index.tolist() == result.index[152 + 4 * row :][:4].tolist()
    assert frame.columns.nlevels == (2 if kind == "frame" else 1)
    if kind == "frame":
        expected = small().fit(y.iloc[:152]).predict_quantiles()
        pd.testing.assert_frame_equal(
            frame.loc[result.times[0]], expected, check_freq=False, rtol=1e-4
        )


@pytest.mark.parametrize("refit", [False, True])
def test_what_comes_later_changes_no_forecast(refit: bool) -> None:
    y = WIDE.copy()
    for key, one in WIDE.groupby(level=0):
        rows = np.flatnonzero(y.index.get_level_values(0) == key)[len(one) - 9 :]
        y.iloc[rows] = y.iloc[rows] * 3 + 100
        y.iloc[rows[2], 0] = np.nan
    one, other = (
        backtest(forecaster(), each, n_windows=3, stride=5, refit=refit) for each in (WIDE, y)
    )
    before = np.tile([True, True, False], 3)  # the second origin is nine readings before the end
    for name in ("quantiles", "naive", "seasonal_naive"):
        np.testing.assert_array_equal(getattr(one, name)[before], getattr(other, name)[before])
    assert not np.array_equal(one.quantiles, other.quantiles)
    np.testing.assert_array_equal(one.scale, other.scale)


def test_a_panel_of_one_is_judged_as_one() -> None:
    y = PARTS["a"]
    single, panel = (
        backtest(small(), each, n_windows=4) for each in (y, pd.concat({"a": y}, names=["id"]))
    )
    for name in ("truth", "naive", "seasonal_naive", "scale", "origins", "owners"):
        np.testing.assert_array_equal(getattr(single, name), getattr(panel, name))
    assert single.season == panel.season == 24
    assert single.times.equals(panel.times)
    columns = ["MSE", "MAE", "RMSE", "MASE", "sMAPE", "WQL", "coverage (0.8)"]
    assert list(panel.table()) == columns
    pd.testing.assert_frame_equal(single.table().iloc[1:], panel.table().iloc[1:])
    # Units are those of the training part or of the window: the scale of a model takes both out,
    # and what is left is its floor.
    np.testing.assert_allclose(panel.quantiles, single.quantiles, rtol=1e-3, atol=1e-3)


def test_forecasts_in_the_units_of_each_window() -> None:
    y = pd.concat({"a": PARTS["a"], "far": 1e6 + 1e4 * PARTS["a"]})
    result = backtest(small(), y, n_windows=3)
    scaled = 1e6 + 1e4 * result.select(series="a").quantiles
    np.testing.assert_allclose(result.select(series="far").quantiles, scaled, rtol=1e-4)


def test_table_averages_over_series(result: Backtest) -> None:
    table = result.table()
    each = {key: result.select(series=key).table() for key in "abc"}
    for metric in ("MASE", "sMAPE"):
        mean = sum(part[metric] for part in each.values()) / 3
        pd.testing.assert_series_equal(table[metric], mean)
    # Each series has as many readings, but for one that is missing: a plain mean is near.
    there = ~np.isnan(result.truth)
    error = np.abs(result.naive - result.truth)[there].mean()
    assert table.loc["naive", "MAE"] == pytest.approx(error)
    assert table.iloc[0]["WQL"] == pytest.approx(
        metrics.wql(result.truth, result.quantiles, levels=(0.1, 0.5, 0.9))
    )
    for number, (key, one) in enumerate(PARTS.items()):
        past = one.to_numpy()[: len(one) - 14]
        scale = np.nanmean(np.abs(past[24:] - past[:-24]))
        np.testing.assert_allclose(result.scale[number], [scale, 2 * scale])
        assert each[key].loc["naive", "MASE"] == pytest.approx(
            np.nanmean(
                np.abs(result.naive - result.truth)[result.owners == number] / [scale, 2 * scale]
            )
        )


def test_a_series_with_nothing_to_compare_does_not_count() -> None:
    y = PANEL.copy()
    y[(y.index.get_level_values(0) == "b") & (y.index.get_level_values(1) >= HOURLY[122])] = np.nan
    result = backtest(forecaster(max_steps=1), y, n_windows=2)
    others = [result.select(series=key).table() for key in "ac"]
    expected = sum(part["sMAPE"] for part in others) / 2
    pd.testing.assert_series_equal(result.table()["sMAPE"], expected)
    with pytest.raises(SeriesError, match="There is no reading to compare"):
        result.select(series="b").table()


def test_a_constant_series_has_no_scale() -> None:
    y = pd.concat([PANEL, pd.concat({"flat": 0 * PARTS["a"].fillna(0)})])
    result = backtest(forecaster(max_steps=1), y, n_windows=2)
    table, others = result.table(), backtest(forecaster(max_steps=1), PANEL, n_windows=2).table()
    assert table.loc["naive", "MASE"] == pytest.approx(others.loc["naive", "MASE"])


def test_silent_contexts_are_counted_and_compared_with_nothing() -> None:
    y = PANEL.copy()
    y[(y.index.get_level_values(0) == "c") & (y.index.get_level_values(1) >= HOURLY[78])] = np.nan
    y.iloc[-3:] = 1.0
    with pytest.warns(SeriesWarning, match="1 of 6 forecasts .* context of 16: they are NaN"):
        result = backtest(forecaster(max_steps=1), y, n_windows=2)
    assert np.isnan(result.quantiles[5]).all()
    assert np.isnan(result.compared[5]).all()
    assert np.isfinite(result.table().iloc[:, :6]).all(axis=None)


def test_series_without_room_are_left_out() -> None:
    y = pd.concat({**PARTS, "tiny": load(0, 30)}, names=["machine"])
    with pytest.warns(SeriesWarning, match="1 of 4 series are left out of the backtest") as caught:
        result = backtest(forecaster(), y, n_windows=3, stride=5)
    assert [warning.filename for warning in caught] == [__file__]
    assert result.series == ("a", "b", "c")
    expected = backtest(forecaster(), PANEL, n_windows=3, stride=5)
    np.testing.assert_array_equal(result.quantiles, expected.quantiles)


@pytest.mark.parametrize("refit", [False, True])
def test_from_one_time_series_have_as_many_windows_as_they_hold(refit: bool) -> None:
    start = HOURLY[80]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = backtest(forecaster(), PANEL, start=start, stride=8, refit=refit)
    assert [len(result.select(series=key).origins) for key in "abc"] == [10, 6, 3]
    assert all(result.select(series=key).times[0] == start for key in "abc")
    for window in range(4):
        cut = [HOURLY[80 + 8 * window] if refit else start, HOURLY[80 + 8 * window]]
        past = [PANEL[PANEL.index.get_level_values(1) < end] for end in cut]
        expected = forecaster().fit(past[0]).predict_quantiles(past[1])
        for key in "abc" if window < 3 else "ab":
            got = result.select(series=key).quantiles[window, :, 0]
            np.testing.assert_allclose(got, expected.loc[key], rtol=1e-4, atol=1e-4)


def test_one_series_and_one_channel(result: Backtest) -> None:
    one = result.select("3", series="b")
    assert (one.series, one.channels, one.title) == (("b",), ("3",), "3 (b)")
    np.testing.assert_array_equal(one.quantiles, result.quantiles[3:6, :, 1:])
    assert one.times.equals(one.index[one.origins])
    assert list(one.frame()) == [(3, 0.1), (3, 0.5), (3, 0.9)]
    assert one.frame().index.get_level_values("machine").unique().tolist() == ["b"]
    assert result.single(series="c").title == "u (c)"
    for call in (result.single, lambda: result.index):
        with pytest.raises(ValueError, match="`series` must be one of 'a', 'b', 'c', got None"):
            call()
    with pytest.raises(ValueError, match="`series` must be one of 'a', 'b', 'c', got 'd'"):
        result.select(series="d")
    with pytest.raises(ValueError, match="`channel` must be one of u, 3, got 'd'"):
        result.single("d", series="a")


@pytest.mark.parametrize("display", [BacktestDisplay, ResidualsDisplay])
def test_pictures_are_of_one_series(result: Backtest, display: type) -> None:
    picture = display.from_backtest(result, channel="3", series="b")
    labels = [axis.get_ylabel() for axis in picture.axes_]
    assert labels[0] in ("MAE of 3 (b)", "residual of 3 (b)")
    alone = display.from_backtest(result.select(series="b"), channel="3")
    for ours, theirs in zip(picture.ax_.lines, alone.ax_.lines, strict=True):
        np.testing.assert_array_equal(ours.get_ydata(), theirs.get_ydata())
    picture.figure_.savefig(io.BytesIO())
    with pytest.raises(ValueError, match="`series` must be one of 'a', 'b', 'c', got None"):
        display.from_backtest(result)


def test_of_many_series_a_few_are_named() -> None:
    y = np.repeat(ARRAY[None, :, None], 7, 0) + np.arange(7)[:, None, None]
    result = backtest(small(max_steps=1), y, n_windows=1)
    with pytest.raises(ValueError, match=r"one of 0, 1, 2, 3, 4, \.\.\. \(7 in all\), got None"):
        BacktestDisplay.from_backtest(result)
    assert BacktestDisplay.from_backtest(result, series=6).ax_.get_ylabel() == "MAE of 0 (6)"
