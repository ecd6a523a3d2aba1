"""A stream with covariates forecasts what the forecaster does, and says what it lacks."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import small
from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import ExportError, StreamError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import Stream, StreamModel, StreamPool
from xlstm_ts.streaming.columns import StreamColumns

HORIZON, LENGTH, CONTEXT = 4, 200, 80
INDEX = pd.date_range("2024-02-27 05:00", periods=LENGTH + HORIZON, freq="h")
RNG = np.random.default_rng(0)
X = pd.DataFrame(
    {
        "promo": (RNG.random(len(INDEX)) < 0.2).astype(float),
        "temp": 300 + RNG.standard_normal(len(INDEX)).cumsum(),
    },
    INDEX,
)
X.loc[INDEX[::7], "temp"] = np.nan
Y = pd.Series(10 + 4 * X.promo + RNG.standard_normal(len(INDEX)), name="load")[:LENGTH]


def export(forecaster: XLSTMForecaster, path: Path, **options: object) -> StreamModel:
    export_onnx(forecaster, path / "model.onnx", **options)
    return StreamModel(path / "model.onnx")


@pytest.fixture(scope="module")
def fitted() -> XLSTMForecaster:
    options = {"known_future": ("promo",), "calendar": ("hour", "dayofweek", "dayofyear")}
    return small(**options, context_length=CONTEXT).fit(Y, X[:LENGTH])


@pytest.fixture(scope="module")
def model(fitted: XLSTMForecaster, tmp_path_factory: pytest.TempPathFactory) -> StreamModel:
    return export(fitted, tmp_path_factory.mktemp("stream"))


def fed(stream: Stream, *, by_name: bool) -> np.ndarray:
    """Feed all readings; return the last forecast."""
    for t in range(LENGTH - CONTEXT, LENGTH):
        promo, temp = X.promo.iloc[t + 1 : t + 1 + HORIZON].to_numpy(), X.temp.iloc[t]
        if by_name:
            now = {"promo": X.promo.iloc[t], "temp": temp}
            out = stream.step(Y.iloc[t], now, {"promo": promo}, time=INDEX[t].to_pydatetime())
        else:  # in the order of the contract
            out = stream.step(
                Y.iloc[t], [temp, X.promo.iloc[t]], promo[:, None], time=str(INDEX[t])
            )
    return out.quantiles[:, 0]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_stream_forecasts_as_the_forecaster(
    fitted: XLSTMForecaster, model: StreamModel, by_name: bool
) -> None:
    names = [(column.name, column.role) for column in model.contract.columns]
    assert names[:2] == [("temp", "past"), ("promo", "known")]
    expected = fitted.predict_quantiles(X=X[LENGTH:])
    got = fed(model.create_stream(), by_name=by_name)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_each_time_may_be_given(model: StreamModel) -> None:
    t = slice(9, 9 + HORIZON)
    now, ahead = [1.0, 0.0], X.promo[t]
    one = model.create_stream().step(5.0, now, ahead, time=INDEX[8]).quantiles
    for time in (INDEX[8 : 9 + HORIZON], np.datetime64(INDEX[8]), INDEX[8].isoformat()):
        other = model.create_stream().step(5.0, now, ahead, time=time).quantiles
        np.testing.assert_array_equal(other, one)
    later = INDEX[8] + datetime.timedelta(hours=7)
    other = model.create_stream().step(5.0, now, ahead, time=later).quantiles
    assert np.abs(other - one).max() > 1e-6


def test_rows_and_columns_of_frames_go_by_their_names(model: StreamModel) -> None:
    row, ahead = X[["promo", "temp"]].iloc[9], X[["promo"]].iloc[10 : 10 + HORIZON]
    one, other, third = (
        model.create_stream().step(5.0, now, later, time=INDEX[9]).quantiles
        for now, later in (
            (row, ahead),
            (row.to_dict(), {"promo": ahead.promo}),
            (row[["temp", "promo"]].to_numpy(), ahead.promo),
        )
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, third)


def test_a_time_is_converted_to_the_zone_of_the_fit(tmp_path: Path) -> None:
    zoned = Y.tz_localize("America/New_York")
    model = export(small(calendar=("hour",), context_length=CONTEXT).fit(zoned), tmp_path)
    assert model.contract.zone == "America/New_York"
    time = zoned.index[8]
    forecasts = [
        model.create_stream().step(5.0, time=each).quantiles
        for each in (time, time.tz_convert("UTC"), time.tz_localize(None), time.isoformat())
    ]
    for other in forecasts[1:]:
        np.testing.assert_array_equal(other, forecasts[0])


@pytest.mark.parametrize("begin", ["2024-03-27 17:00", "2024-10-23 17:00"])
def test_summer_time_begins_or_ends_within_the_horizon(begin: str, tmp_path: Path) -> None:
    """The next hours are those of the forecaster, however a stream is told the time."""
    hours = pd.date_range(begin, periods=80, freq="h", tz="Europe/Rome")  # until midnight
    y = pd.Series(Y.to_numpy()[:80], hours)
    options = {"calendar": ("hour",), "max_steps": 30, "learning_rate": 0.03}
    forecaster = small(**options, context_length=64).fit(y)
    y = y.iloc[-64:]
    model, expected = export(forecaster, tmp_path), forecaster.predict_quantiles().to_numpy()
    stepped, warmed = model.create_stream(), model.create_stream()
    for hour, reading in y.items():
        output = stepped.step(reading, time=hour)
    pool = StreamPool(model)
    for got in (
        output,
        warmed.warm_up(y.to_numpy(), time=y.index),
        [pool.step({"x": reading}, time=hour) for hour, reading in y.items()][-1]["x"],
    ):
        np.testing.assert_allclose(got.quantiles[:, 0], expected, atol=1e-4)


def test_keys_of_a_call_may_tick_together_or_not(model: StreamModel) -> None:
    """What keys with one time share of the calendar is not handed to one with another time."""
    hours = [INDEX[8], INDEX[8], INDEX[9], INDEX[8], INDEX[10], INDEX[10]]
    now, ahead = {"temp": 300.0, "promo": 0.0}, {"promo": np.zeros(HORIZON)}
    keys = range(len(hours))
    for times in (hours, [str(hour) for hour in hours]):
        outputs = StreamPool(model).step(
            dict.fromkeys(keys, 5.0),
            covariates=dict.fromkeys(keys, now),
            future=dict.fromkeys(keys, ahead),
            time=dict(zip(keys, times, strict=True)),
        )
        for key, hour in zip(keys, hours, strict=True):
            alone = model.create_stream().step(5.0, now, ahead, time=hour)
            np.testing.assert_allclose(outputs[key].quantiles, alone.quantiles, atol=1e-5)
    first, last = (outputs[key].quantiles for key in (0, 5))
    assert np.abs(first - last).max() > 1e-3  # the hour tells something


def test_the_form_of_a_time_is_its_own(model: StreamModel) -> None:
    """What one key is told says nothing of the form in which another is, in any order."""
    now, ahead = {"temp": 300.0, "promo": 0.0}, {"promo": np.zeros(HORIZON)}
    each, one = INDEX[8 : 9 + HORIZON], str(INDEX[8])

    def step(first: object, second: object) -> dict[object, object]:
        times = {"a": first, "b": second}
        beside = {"covariates": dict.fromkeys("ab", now), "future": dict.fromkeys("ab", ahead)}
        return StreamPool(model).step({"a": 5.0, "b": 5.0}, **beside, time=times)

    for first, second in ((each, one), (one, each), (each.to_numpy(), one)):
        outputs = step(first, second)
        np.testing.assert_allclose(outputs["a"].quantiles, outputs["b"].quantiles, atol=1e-5)
    for wrong in ([one], each[:3]):
        for key, times in (("b", (one, wrong)), ("a", (wrong, one))):
            with pytest.raises(StreamError, match=f"Key '{key}': `time` is one time or 5"):
                step(*times)


@pytest.mark.parametrize("horizon", [1, 3])
def test_plain_numbers_are_read_together(horizon: int, tmp_path: Path) -> None:
    options = {"horizon": horizon, "known_future": ("promo", "temp")}
    contract = export(small(**options).fit(Y, X[:LENGTH]), tmp_path).contract
    columns, rng = StreamColumns(contract), np.random.default_rng(0)
    names = [column.name for column in contract.columns]
    values, later = rng.random((5, 2)), rng.random((5, horizon, 2))
    forms = {
        "list": ([*values.tolist()], [*later.tolist()]),
        "ndarray": ([*values], [*later]),
        "dict": (
            [dict(zip(names, row, strict=True)) for row in values],
            [dict(zip(names, rows.T, strict=True)) for rows in later],
        ),
    }
    for now, ahead in forms.values():
        together = columns.read_together(now, ahead, [None] * 5)
        assert together is not None
        each = [columns.read(*one, None) for one in zip(now, ahead, strict=True)]
        for got, expected in zip(together, zip(*each, strict=True), strict=True):
            np.testing.assert_array_equal(got, expected)
    mixed = [forms["dict"][0][0], *forms["list"][0][1:]]
    assert columns.read_together(mixed, forms["list"][1], [None] * 5) is None


def test_what_a_mask_hides_is_missing(model: StreamModel) -> None:
    masked = np.ma.masked_array([-999.0, 1.0], [True, False])
    one, other = (
        model.create_stream().step(5.0, now, np.zeros(HORIZON), time=INDEX[8]).quantiles
        for now in (masked, [np.nan, 1.0])
    )
    np.testing.assert_array_equal(one, other)


def level(column: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"meter": column}, INDEX)


def test_a_column_of_a_high_level_streams_or_is_named(tmp_path: Path) -> None:
    """Its level is in float32 digits; what a stream cannot tell apart is refused."""
    options = {"known_future": "all", "context_length": CONTEXT, "max_steps": 30}
    # Counts that float32 holds, about a mean that it does not.
    counts = level(8e6 + RNG.integers(0, 20, len(INDEX)))
    export(small(**options, learning_rate=0.01).fit(Y, counts[:LENGTH]), tmp_path)
    meter = level(1e9 + 20 * RNG.standard_normal(len(INDEX)))
    y = Y + meter.meter[:LENGTH] - 1e9
    with pytest.raises(ExportError, match="columns meter of X"):
        export(small(**options, learning_rate=0.03).fit(y, meter[:LENGTH]), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariates": None}, "`covariates` is missing: give temp, promo"),
        ({"future": None}, "`future` is missing: give promo, 4 values each"),
        ({"time": None}, "`time` of the reading is missing"),
        ({"time": "noon"}, "cannot be read as a time"),
        ({"time": np.datetime64("NaT")}, "cannot be read as a time"),
        ({"time": INDEX[:3]}, "`time` is one time or 5"),
        ({"covariates": {"temp": 1.0}}, "lacks promo"),
        ({"time": INDEX[0].tz_localize("UTC")}, "without a zone"),
        ({"covariates": [1.0]}, "expected \\(2,\\)"),
        ({"covariates": [np.inf, 1]}, "beyond float32"),
        ({"covariates": ["warm", 1]}, "must be numbers"),
        ({"future": np.zeros((3, 1))}, "expected \\(4, 1\\)"),
    ],
)
def test_what_lacks_is_named_and_nothing_lost(
    model: StreamModel, arguments: dict[str, object], message: str
) -> None:
    stream = model.create_stream()
    right = {"covariates": [1.0, 0.0], "future": np.zeros(HORIZON), "time": INDEX[0]}
    stream.step(1.0, **{**right, "time": INDEX[0] - datetime.timedelta(hours=1)})
    before = stream.state
    with pytest.raises(StreamError, match=message):
        stream.step(2.0, **{**right, **arguments})
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])
    stream.step(2.0, **right)  # a time that was refused has not been told


def test_a_stream_without_columns_takes_none(tmp_path: Path) -> None:
    stream = export(small().fit(Y), tmp_path).create_stream()
    with pytest.raises(StreamError, match="without covariates"):
        stream.step(1.0, [2.0])
    with pytest.raises(StreamError, match="no static size"):
        StreamModel(tmp_path / "model.onnx").create_stream(static={"size": 1})


def test_streams_of_a_panel_know_what_is_static(tmp_path: Path) -> None:
    panel = pd.concat({"a": Y, "b": 3 * Y + 100}, names=["key", "time"])
    static = pd.DataFrame({"kind": ["shop", "web"], "size": [1.0, 5.0]}, index=["a", "b"])
    forecaster = small(context_length=CONTEXT).fit(panel, static=static)
    model = export(forecaster, tmp_path, series="b")
    with pytest.raises(StreamError, match="with kind, size"):
        model.create_stream()
    with pytest.raises(StreamError, match="knows shop, web"):
        model.create_stream(static={"kind": "typo", "size": 1})
    expected = forecaster.predict_quantiles().loc["b"]
    for kind, is_same in (("web", True), ("shop", False)):
        stream = model.create_stream(static=pd.Series({"kind": kind, "size": 5}))
        for reading in 3 * Y[-CONTEXT:] + 100:
            out = stream.step(reading)
        error = np.abs(out.quantiles[:, 0] - expected).to_numpy().max()
        assert (error < 1e-3) == is_same
