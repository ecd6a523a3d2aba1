"""A backtest forecasts as the estimator would have, and sees nothing that came later."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import XLSTMForecaster, backtest, metrics
from xlstm_ts.exceptions import SeriesError

GAPS = ARRAY.copy()
GAPS[[*range(40, 45), 90, 110, 111, 130, 155, 159]] = np.nan
FRAME = pd.DataFrame({"a": GAPS, 3: ARRAY * 100}, index=HOURLY)
KINDS = {
    "1-D": ARRAY,
    "list": ARRAY.tolist(),
    "2-D": np.stack([GAPS, ARRAY], 1),
    "masked": np.ma.masked_invalid(GAPS),
    "series": pd.Series(GAPS, HOURLY),
    "periods": pd.Series(ARRAY, pd.period_range("2020", periods=160, freq="D")),
    "frame": FRAME,
}


def part(y: object, length: int) -> object:
    return y.iloc[:length] if isinstance(y, pd.Series | pd.DataFrame) else y[:length]


@pytest.mark.parametrize(("kind", "refit"), [*((kind, False) for kind in KINDS), ("frame", True)])
def test_forecasts_as_the_estimator_does(kind: str, refit: bool) -> None:
    y = KINDS[kind]
    result = backtest(small(), y, n_windows=3, stride=6, refit=refit)
    assert result.origins.tolist() == [144, 150, 156]
    for row, origin in enumerate(result.origins):
        forecaster = small().fit(part(y, origin if refit else 144))
        expected = np.asarray(forecaster.predict_quantiles(part(y, origin)))
        expected = expected.reshape(result.quantiles[row].shape)
        np.testing.assert_allclose(result.quantiles[row], expected, rtol=1e-4, atol=1e-4)
        readings = np.ma.filled(np.ma.asarray(y, dtype=float), np.nan).reshape(160, -1)
        np.testing.assert_array_equal(result.truth[row], readings[origin : origin + 4])
    np.testing.assert_array_equal(result.forecasts, result.quantiles[..., 1])


@pytest.mark.parametrize("refit", [False, True])
def test_what_comes_later_changes_no_forecast(refit: bool) -> None:
    for origin in (144, 150):
        changed = FRAME.copy()
        changed.iloc[origin:] = changed.iloc[origin:] * 3 + 100
        changed.iloc[origin + 2, 0] = np.nan
        one, other = (
            backtest(small(), y, n_windows=3, stride=6, refit=refit) for y in (FRAME, changed)
        )
        before = one.origins <= origin
        for name in ("quantiles", "naive", "seasonal_naive"):
            np.testing.assert_array_equal(getattr(one, name)[before], getattr(other, name)[before])
        # An origin after the change does see it.
        assert before.all() or not np.array_equal(one.quantiles[~before], other.quantiles[~before])
        np.testing.assert_array_equal(one.scale, other.scale)
        assert one.season == other.season


def test_the_given_estimator_stays_as_it_is() -> None:
    forecaster = small()
    backtest(forecaster, ARRAY, n_windows=2)
    with pytest.raises(NotFittedError):
        forecaster.predict()
    before = dict(vars(forecaster.fit(ARRAY[:100])))
    backtest(forecaster, ARRAY, n_windows=2)
    assert vars(forecaster) == before
    assert clone(forecaster).get_params() == small().get_params()


@pytest.mark.parametrize(
    ("options", "origins"),
    [
        ({}, range(120, 160, 4)),
        ({"n_windows": 2}, [152, 156]),
        ({"n_windows": 3, "stride": 10}, [136, 146, 156]),
        ({"start": 150}, [150, 154]),
        ({"start": np.int64(156)}, [156]),
        ({"start": "2024-04-04", "stride": 7}, [143, 150]),  # a day of this zone has 23 hours
        ({"start": HOURLY[152]}, [152, 156]),
    ],
)
def test_origins(options: dict[str, object], origins: list[int]) -> None:
    result = backtest(small(max_steps=1), FRAME, **options)
    assert result.origins.tolist() == list(origins)
    assert result.times.equals(HOURLY[list(origins)])


def test_naive_forecasts_fill_gaps_from_what_was_known() -> None:
    result = backtest(small(max_steps=1), FRAME, start=131, stride=25)
    assert result.season == 24
    values = FRAME.to_numpy()
    for row, origin in enumerate((131, 156)):
        for step in range(4):
            last = values[:origin][~np.isnan(values[:origin, 0]), 0][-1]
            assert result.naive[row, step, 0] == last
            seasons = values[origin - 24 + step :: -24, 0]
            assert result.seasonal_naive[row, step, 0] == seasons[~np.isnan(seasons)][0]
    # 130 is missing itself, and 155 with 131 (24 before) there
    assert result.naive[0, 0, 0] == values[129, 0]


def test_table_is_of_the_metrics() -> None:
    result = backtest(small(), FRAME, n_windows=4)
    table = result.table()
    assert list(table.index) == ["XLSTMForecaster", "naive", "seasonal-naive"]
    assert list(table) == ["MSE", "MAE", "RMSE", "MASE", "sMAPE", "WQL", "coverage (0.8)"]
    known = FRAME.to_numpy()[:144]
    scale = np.nanmean(np.abs(known[24:] - known[:-24]), 0)
    for name, point in result.points().items():
        there = ~np.isnan(result.truth)
        error = np.abs(point - result.truth)
        assert table.loc[name, "MSE"] == pytest.approx((error[there] ** 2).mean())
        assert table.loc[name, "RMSE"] == pytest.approx((error[there] ** 2).mean() ** 0.5)
        assert table.loc[name, "MAE"] == pytest.approx(error[there].mean())
        assert table.loc[name, "MASE"] == pytest.approx((error / scale)[there].mean())
        assert table.loc[name, "sMAPE"] == pytest.approx(metrics.smape(result.truth, point))
    ours, others = table.iloc[0], table.iloc[1:]
    assert ours["WQL"] == pytest.approx(
        metrics.wql(result.truth, result.quantiles, levels=(0.1, 0.5, 0.9))
    )
    assert ours["coverage (0.8)"] == metrics.coverage(result.truth, result.quantiles)
    size = np.nansum(np.abs(result.truth))
    weighted = np.nansum(np.abs(result.seasonal_naive - result.truth)) / size
    assert others.loc["seasonal-naive", "WQL"] == pytest.approx(weighted)
    assert others["coverage (0.8)"].isna().all()


def test_rows_of_the_table_compare_the_same_readings() -> None:
    y = np.stack([ARRAY, ARRAY], 1)
    y[:150:8, 1] = np.nan  # of one phase of the season nothing is known before the origins
    result = backtest(small(max_steps=1), y, n_windows=2)
    assert result.season == 8
    unknown = np.isnan(result.seasonal_naive)
    assert (unknown & ~np.isnan(result.truth)).any()
    truth = np.where(unknown, np.nan, result.truth)
    table = result.table()
    assert table["MAE"].notna().all()
    assert table["MAE"].iloc[0] == pytest.approx(metrics.mae(truth, result.forecasts))


def test_one_channel_alone() -> None:
    result = backtest(small(), FRAME, n_windows=2)
    one = result.select("3")
    assert one.channels == ("3",)
    np.testing.assert_array_equal(one.quantiles, result.quantiles[:, :, 1:])
    errors = np.abs(result.seasonal_naive - result.truth)[..., 1]
    assert one.table().loc["seasonal-naive", "MAE"] == pytest.approx(errors.mean())
    assert one.table().loc["naive", "MASE"] == pytest.approx(
        np.abs(result.naive - result.truth)[..., 1].mean() / result.scale[0, 1]
    )
    with pytest.raises(ValueError, match="`channel` must be one of a, 3, got 'b'"):
        result.select("b")


def test_one_level_has_no_coverage() -> None:
    table = backtest(small(quantiles=(0.5,)), ARRAY, n_windows=2).table()
    assert np.isnan(table.iloc[0, -1])
    assert table.loc["XLSTMForecaster", "WQL"] > 0


def test_a_skilful_forecaster_beats_repeating(fitted: XLSTMForecaster, sine: pd.DataFrame) -> None:
    table = backtest(fitted, sine, start=600).table()
    assert table.loc["XLSTMForecaster", "MASE"] < 0.5 * table.loc["naive", "MASE"]
    assert 0.3 < table.iloc[0]["coverage (0.8)"] <= 1


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    backtest(small(max_steps=1), ARRAY, n_windows=2)
    assert capsys.readouterr().err == ""
    backtest(small(max_steps=1), ARRAY, n_windows=2, refit=True, verbose=1)
    assert "backtest: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_windows": 2, "start": 150}, r"Give `n_windows` \(2\) or `start` \(150\), not both"),
        ({"n_windows": 0}, "`n_windows` must be at least 1, got 0"),
        ({"stride": 0}, "`stride` must be at least 1, got 0"),
        ({"start": 0}, "`start` must be at least 1, got 0"),
        ({"start": 3.5}, "`start` must be a number of readings or a time of datetime64"),
        ({"start": "tomorrow-ish"}, "`start` must be a number of readings or a time"),
        ({"start": pd.Timestamp("2024-04-01")}, "or a time of datetime64.*Rome"),
        ({"start": 157}, "160 readings, too few for 1 forecasts of 4"),
        ({"start": "2030"}, "160 readings, too few for 1 forecasts of 4"),
        ({"start": "2000"}, "160 readings, too few"),
        ({"n_windows": 40}, "160 readings, too few for 40 forecasts of 4"),
        ({"start": 26}, "No fit on the 26 readings before an origin: `y` is too short.*fewer"),
        ({"start": 23}, r"23 readings before the first origin, fewer than its season \(24\)"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, object], message: str) -> None:
    forecaster = small(context_length=20, max_steps=1)
    with pytest.raises(ValueError, match=message):
        backtest(forecaster, FRAME, **options)


def test_unusable_series_is_named_as_it_is() -> None:
    with pytest.raises(SeriesError, match="is inf at position 3"):
        backtest(small(), [1.0, 2.0, 3.0, np.inf])
    with pytest.raises(ValueError, match="`start` must be an integer, got '2024'"):
        backtest(small(), ARRAY, start="2024")
    with pytest.raises(ValueError, match="`horizon` must be at least 1, got 0"):
        backtest(small(horizon=0), ARRAY)
