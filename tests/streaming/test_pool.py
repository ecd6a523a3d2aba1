"""A pool forecasts what single streams would, whoever comes and goes."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import small
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel, StreamOutput, StreamPool

HORIZON, LENGTH = 4, 120
INDEX = pd.date_range("2024-02-27 05:00", periods=LENGTH + HORIZON, freq="h")
STATIC = {"a": {"kind": "shop", "size": 1.0}, "b": {"kind": "web", "size": 5.0}}
# Where a row stands in a batch decides how its sines and logarithms are computed, to a bit or so.
ROUNDING = 2e-6


@pytest.fixture(scope="module")
def model(graph_path: Path) -> StreamModel:
    return StreamModel(graph_path)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> StreamModel:
    """Return a model with columns of every kind."""
    rng = np.random.default_rng(0)
    y = pd.Series(10 + rng.standard_normal(LENGTH), INDEX[:LENGTH], name="load")
    X = pd.DataFrame(rng.standard_normal((LENGTH, 2)), INDEX[:LENGTH], ["temp", "promo"])
    panel, beside = (pd.concat({"a": one, "b": one + 1}, names=["key", "time"]) for one in (y, X))
    options = {"known_future": ("promo",), "calendar": ("hour", "dayofweek")}
    static = pd.DataFrame.from_dict(STATIC, "index")
    forecaster = small(**options, learning_rate=0.01).fit(panel, beside, static=static)
    path = tmp_path_factory.mktemp("rich") / "model.onnx"
    export_onnx(forecaster, path, series="b")
    return StreamModel(path)


def reading(rng: np.random.Generator) -> list[float]:
    return [50 + 10 * rng.standard_normal(), np.nan if rng.random() < 0.1 else 3.0]


def assert_close(one: StreamOutput, other: StreamOutput) -> None:
    for got, expected in zip(one, other, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING * scale)


def assert_same(one: dict[object, StreamOutput], other: dict[object, StreamOutput]) -> None:
    assert [*one] == [*other]
    for key, output in one.items():
        np.testing.assert_array_equal(output.quantiles, other[key].quantiles)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_a_pool_forecasts_as_single_streams(model: StreamModel, batch_size) -> None:
    """Keys come when they come, leave, come back as new ones; slots grow and are used again."""
    rng = np.random.default_rng(0)
    pool, streams = StreamPool(model, batch_size=batch_size), {}
    for t in range(40):
        keys = rng.permutation(70)[: rng.integers(30)].tolist()
        if t % 5 == 4:
            for key in keys[:5]:
                assert (key in pool) == (streams.pop(key, None) is not None)
                if key in pool:
                    pool.drop(key)
                    assert key not in pool
        readings = {key: reading(rng) for key in keys}
        outputs = pool.step(readings)
        assert [*outputs] == keys
        for key in keys:
            stream = streams.setdefault(key, model.create_stream())
            assert_close(outputs[key], stream.step(readings[key]))
        assert [*pool] == [*streams]
        assert len(pool) == len(streams)
    assert len(streams) > 2 * 16  # the first slots were not enough


def told(rng: np.random.Generator, t: int) -> dict[str, object]:
    promo = rng.standard_normal(HORIZON)
    return {
        "covariates": {"temp": rng.standard_normal(), "promo": rng.standard_normal()},
        "future": {"promo": promo},
        "time": INDEX[t],
    }


@pytest.mark.parametrize("is_shared", [True, False])
def test_columns_go_by_key(rich: StreamModel, is_shared: bool) -> None:
    rng, pool = np.random.default_rng(0), StreamPool(rich, batch_size=2, static=STATIC)
    streams = {key: rich.create_stream(static=STATIC[key]) for key in STATIC}
    for t in range(30):
        readings = {key: rng.standard_normal() for key in ("b", "a")[t % 2 :]}
        beside = {key: told(rng, t) for key in STATIC}  # more than is needed does no harm
        by_key = {name: {key: given[name] for key, given in beside.items()} for name in beside["a"]}
        outputs = pool.step(readings, **(by_key | {"time": INDEX[t]} if is_shared else by_key))
        for key, output in outputs.items():
            assert_close(output, streams[key].step(readings[key], **beside[key]))


def test_outputs_stay_and_hold_nothing_else(model: StreamModel) -> None:
    pool = StreamPool(model)
    first = pool.step({key: [50.0 + key, 3.0] for key in range(5)})
    kept = {key: output.quantiles.copy() for key, output in first.items()}
    pool.step({key: [60.0, 3.0] for key in range(5)})
    for key, output in first.items():
        np.testing.assert_array_equal(output.quantiles, kept[key])
        assert output.quantiles.base is None
        np.testing.assert_array_equal(output.forecast, output.quantiles[..., 1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0], r"Key 'new': .*shape \(2,\)"),
        ([[1.0, 2.0]], "Key 'new': .*shape"),
        (["x", 1.0], "Key 'new': .*a, b"),
        ({}, "Key 'new': .*a, b"),
        ([1.0, np.inf], "Key 'new': .*of b"),
        (np.ma.masked_array([-1e39, 1], [False, True]), "Key 'new': .*of a"),
    ],
)
def test_a_wrong_reading_changes_nothing_for_anyone(model, wrong, message: str) -> None:
    pool, other = StreamPool(model, expire_after=1), StreamPool(model, expire_after=1)
    for each in (pool, other):
        each.step({"stale": [50.0, 3.0]})
        each.step({"here": [51.0, 3.0]})
    with pytest.raises(StreamError, match=message):
        pool.step({"here": [52.0, 3.0], "new": wrong, "more": [1.0, 2.0]})
    assert [*pool] == ["stale", "here"]
    for readings in ({"here": [52.0, 3.0], "stale": [50.0, 3.0]}, {"here": [1.0, 1.0]}):
        assert_same(pool.step(readings), other.step(readings))


def test_what_lacks_beside_a_key_changes_nothing(rich: StreamModel) -> None:
    static = {**STATIC, "c": {"kind": "typo", "size": 1}}
    rng, pool = np.random.default_rng(0), StreamPool(rich, static=static)

    def step(t: int, keys: str, **changes: object) -> dict[object, StreamOutput]:
        given = told(rng, 0)
        beside = {name: dict.fromkeys(keys, given[name]) for name in ("covariates", "future")}
        return pool.step(dict.fromkeys(keys, 1.0), **{**beside, "time": INDEX[t], **changes})

    step(0, "a")
    before = pool.state("a")
    for arguments, message in (
        ({"keys": "ab", "covariates": {"a": [1, 2]}}, "Key 'b': `covariates` is missing"),
        ({"keys": "ab", "future": None}, "Key 'a': `future` is missing"),
        ({"keys": "ab", "time": {"a": INDEX[1]}}, "Key 'b': `time` of the reading is missing"),
        ({"keys": "ab", "time": None}, "Key 'a': `time` of the reading is missing"),
        ({"keys": "ba", "t": 0}, "Key 'a': `time` is .* not after"),
        ({"keys": "ab", "covariates": [1, 2]}, "`covariates` must come by key"),
        ({"keys": "ac"}, "Key 'c': .*knows shop, web"),
        ({"keys": "ad"}, "Key 'd': .*give `static` with kind, size"),
    ):
        with pytest.raises(StreamError, match=message):
            step(**{"t": 1, **arguments})
        assert [*pool] == ["a"]
    for name, array in pool.state("a").items():
        np.testing.assert_array_equal(array, before[name])
    step(1, "ba")


def test_what_a_model_does_not_take_is_refused(model: StreamModel) -> None:
    pool = StreamPool(model)
    for arguments, message in (
        ({"readings": [[1.0, 2.0]]}, "`readings` must come by key"),
        ({"readings": {"a": [1.0, 2.0]}, "covariates": {"a": 1}}, "without covariates"),
        ({"readings": {"a": [1.0, 2.0]}, "future": {}}, "without covariates"),
    ):
        with pytest.raises(StreamError, match=message):
            pool.step(**arguments)
    with pytest.raises(StreamError, match=r"Key 'a': .*no static size"):
        StreamPool(model, static={"a": {"size": 1}}).step({"a": [1.0, 2.0]})


def test_readings_of_every_form(model: StreamModel) -> None:
    forms = {
        "list": [50.0, np.nan],
        "tuple": (50, np.nan),
        "array": np.array([50.0, np.nan]),
        "mask": np.ma.masked_array([50.0, -999.0], [False, True]),
    }
    pool, plain = StreamPool(model), {key: [50.0, np.nan] for key in forms}
    outputs, others = pool.step(forms), StreamPool(model).step(plain)
    assert_same(outputs, others)
    assert pool.step({}) == {}


@pytest.mark.filterwarnings("error")
def test_what_goes_beside_comes_in_every_form(rich: StreamModel) -> None:
    """Read together where all come in one form, one by one otherwise: the same comes out."""
    given = told(np.random.default_rng(0), 0)
    now, ahead = ([*given[name].values()] for name in ("covariates", "future"))
    names, later = [*given["covariates"]], [*given["future"]]
    masked = np.ma.masked_array(now, [False] * (len(now) - 1) + [True])
    nothing = [*now[:-1], np.nan]
    forms = [
        {key: dict(zip(names, nothing, strict=True)) for key in "ab"},
        {"a": dict(zip(names, nothing, strict=True)), "b": pd.Series(nothing, names)},
        {key: {**dict(zip(names, masked, strict=True)), "more": "text"} for key in "ab"},
    ]
    future = {key: dict(zip(later, ahead, strict=True)) for key in "ab"}
    outputs = [
        StreamPool(rich, static=STATIC).step(
            dict.fromkeys("ab", 1.0), covariates=form, future=future, time=INDEX[0]
        )
        for form in forms
    ]
    for other in outputs[1:]:
        assert_same(other, outputs[0])
    wrong = {"a": {**forms[0]["a"], names[0]: 1e39}, "b": forms[0]["b"]}
    with pytest.raises(StreamError, match=r"Key 'a': .* holds 1e\+39, beyond float32"):
        StreamPool(rich, static=STATIC).step(
            dict.fromkeys("ab", 1.0), covariates=wrong, future=future, time=INDEX[0]
        )


def test_one_channel_comes_as_a_number(rich: StreamModel) -> None:
    static = dict.fromkeys("abc", STATIC["a"])
    given = told(np.random.default_rng(0), 0)
    beside = {name: dict.fromkeys("abc", given[name]) for name in ("covariates", "future")}
    pools = [StreamPool(rich, static=static) for _ in range(2)]
    first, other = (
        pool.step(readings, **beside, time=INDEX[0])
        for pool, readings in zip(
            pools, ({"a": 1.0, "b": [1.0], "c": np.array(1)}, dict.fromkeys("abc", 1)), strict=True
        )
    )
    assert_same(first, other)


@pytest.mark.filterwarnings("error")
def test_a_masked_number_is_missing(rich: StreamModel) -> None:
    """What an index gives of a masked array; numpy warns where it makes a number of it."""
    given, masked = told(np.random.default_rng(0), 0), np.ma.masked_array([1.0], [True])[0]
    beside = {name: dict.fromkeys("ab", given[name]) for name in ("covariates", "future")}
    pool = StreamPool(rich, static=dict.fromkeys("ab", STATIC["a"]))
    outputs = pool.step({"a": masked, "b": np.nan}, **beside, time=INDEX[0])
    np.testing.assert_array_equal(outputs["a"].quantiles, outputs["b"].quantiles)
    stream, other = (rich.create_stream(static=STATIC["a"]) for _ in range(2))
    one, expected = stream.step(masked, **given), other.step(np.nan, **given)
    np.testing.assert_array_equal(one.quantiles, expected.quantiles)


def test_a_key_expires_after_calls_without_it(model: StreamModel) -> None:
    pool, value = StreamPool(model, expire_after=3), [50.0, 3.0]
    first = pool.step({"gone": value, "back": value, "new": value})
    for t in range(3):
        pool.step({"new": value} if t else {"new": value, "late": value})
        assert len(pool) == 4  # three calls without them: not yet more than that
    output = pool.step({"new": value, "back": value})
    assert [*pool] == ["new", "late", "back"]
    np.testing.assert_array_equal(output["back"].quantiles, first["back"].quantiles)
    assert not np.array_equal(output["new"].quantiles, first["new"].quantiles)
    pool.step({})
    assert [*pool] == ["new", "back"]


def test_a_key_expires_by_the_times_it_is_told(model: StreamModel) -> None:
    pool, start = StreamPool(model, expire_after=timedelta(minutes=10)), datetime(2024, 3, 1)
    value = [50.0, 3.0]

    def step(minutes: float, *keys: str) -> None:
        pool.step(dict.fromkeys(keys, value), time=start + timedelta(minutes=minutes))

    step(0, "a", "b", "d")
    step(10, "c", "d")
    assert [*pool] == ["a", "b", "d", "c"]
    assert pool.expired == []
    with pytest.raises(StreamError, match="`time` is missing: keys of this pool expire by it"):
        pool.step({"a": value})
    step(10.1, "a", "c")  # too late to go on
    assert [*pool] == ["d", "c", "a"]
    assert pool.expired == ["a", "b"]
    # A reading that comes late makes its key neither older nor younger than it is.
    times = {"late": start, "a": start + timedelta(minutes=11), "c": start + timedelta(minutes=11)}
    pool.step(dict.fromkeys(times, value), time=times)
    assert [*pool] == ["d", "c", "a", "late"]
    step(11.5, "a", "c")
    assert [*pool] == ["d", "c", "a"]


@pytest.mark.parametrize("together", [100, 1])
def test_one_wrong_clock_leaves_a_pool_as_it_is(model, together: int, tmp_path: Path) -> None:
    """Of many keys in a call or of one in each; also after a restart in the middle."""
    pool, other = (StreamPool(model, expire_after=timedelta(hours=2)) for _ in range(2))
    rng, start, wrong = np.random.default_rng(0), datetime(2024, 3, 1), datetime(2099, 1, 1)
    for hour in range(5):
        keys = [f"pump {place}" for place in range(99 if hour else 100)]
        readings = {key: reading(rng) for key in ["wrong", *keys]}
        times = dict.fromkeys(keys, start + timedelta(hours=hour))
        times["wrong"] = wrong + timedelta(hours=hour)
        for place in range(0, len(readings), together):
            given = dict([*readings.items()][place : place + together])
            outputs = pool.step(given, time=times)
            given.pop("wrong", None)
            for key, output in other.step(given, time=times).items():
                assert_close(outputs[key], output)
        assert [key for key in pool if key != "wrong"] == [*other]
        pool.snapshot(tmp_path / "snapshot")
        pool = StreamPool(model, expire_after=timedelta(hours=2))
        pool.restore(tmp_path / "snapshot")
    assert len(other) == 99


def test_a_refused_call_keeps_nobody_alive(model: StreamModel) -> None:
    pool, value = StreamPool(model, expire_after=2), [50.0, 3.0]
    pool.step({"old": value})
    pool.step({"b": value})
    pool.step({"b": value})
    with pytest.raises(StreamError, match="A key is a text"):
        pool.step({"b": value, None: value})
    assert [*pool] == ["old", "b"]
    pool.step({"b": value})
    assert [*pool] == ["b"]


def test_a_state_that_is_given_expires_by_the_times_of_the_others(model: StreamModel) -> None:
    pool = StreamPool(model, expire_after=timedelta(minutes=10))
    pool.set_state("given", model.create_stream().state)
    for minutes in (0, 10, 11):
        assert "given" in pool
        time = datetime(2024, 3, 1) + timedelta(minutes=minutes)
        pool.step({"a": [50.0, 3.0], "b": [50.0, 3.0]}, time=time)
    assert [*pool] == ["a", "b"]


def test_a_state_for_a_wrong_key_takes_no_slot(model: StreamModel) -> None:
    pool, state = StreamPool(model), model.create_stream().state
    for _ in range(20):
        with pytest.raises(StreamError, match="A key is a text"):
            pool.set_state(1.5, state)
    assert len(pool._slots.last) == 16
    assert not pool._slots.heard.is_taken.any()


@pytest.mark.parametrize("name", ["reset", "state", "drop"])
def test_a_key_that_is_not_there_is_named(model: StreamModel, name: str) -> None:
    with pytest.raises(StreamError, match="no key 'x'"):
        getattr(StreamPool(model), name)("x")


def test_reset_and_states_by_key(model: StreamModel) -> None:
    rng, pool, stream = np.random.default_rng(0), StreamPool(model), model.create_stream()
    values = [reading(rng) for _ in range(9)]
    for value in values:
        last = stream.step(value)
        pool.step({"a": value, "b": value})
    state = pool.state("a")
    assert {name: array.shape for name, array in state.items()} == {
        name: array.shape for name, array in stream.state.items()
    }
    pool.reset("a")
    first = pool.step({"a": values[0], "b": values[0]})
    assert_close(first["a"], model.create_stream().step(values[0]))
    assert_close(first["b"], stream.step(values[0]))
    pool.set_state("a", state)
    pool.set_state("c", state)
    with pytest.raises(StreamError, match="another model"):
        pool.set_state("d", {})
    assert [*pool] == ["a", "b", "c"]
    stream.state = state
    again, expected = pool.step({"a": values[1], "c": values[1]}), stream.step(values[1])
    assert_close(again["a"], expected)
    assert_close(again["c"], expected)
    assert np.isfinite(last.quantiles).all()


def test_a_reset_key_takes_any_time(model: StreamModel) -> None:
    pool, noon = StreamPool(model), datetime(2024, 3, 1, 12)
    pool.step({"a": [50.0, 3.0]}, time=noon)
    pool.reset("a")
    pool.step({"a": [50.0, 3.0]}, time=noon)
    pool.drop("a")
    pool.step({"a": [50.0, 3.0]}, time=noon)


def test_slots_are_used_again(model: StreamModel) -> None:
    """A thousand keys, of which few are there at once, take the room of few."""
    pool = StreamPool(model, expire_after=2)
    for t in range(250):
        pool.step({key: [50.0, 3.0] for key in range(4 * t, 4 * t + 4)})
    assert len(pool) <= 16
    assert len(pool._slots.last) == 16


def test_keys_come_back_as_what_they_were(model: StreamModel, tmp_path: Path) -> None:
    keys = ["1", 1, ("pump", 7), ("pump", ("a", 7)), -3, "", (), np.int64(5), np.str_("np")]
    pool = StreamPool(model)
    pool.step({key: [50.0, 3.0] for key in keys})
    pool.snapshot(tmp_path / "snapshot")
    other = StreamPool(model)
    other.restore(tmp_path / "snapshot")
    assert [*other] == keys
    assert [type(key) for key in other] == [str, int, tuple, tuple, int, str, tuple, int, str]
    assert all(key in other for key in keys)


@pytest.mark.parametrize("key", [1.5, None, True, b"a", ("a", 1.5), frozenset("a")])
def test_a_key_that_would_not_come_back_is_refused(model: StreamModel, key: object) -> None:
    pool = StreamPool(model)
    with pytest.raises(StreamError, match="A key is a text, an integer or a tuple"):
        pool.step({"a": [50.0, 3.0], key: [50.0, 3.0]})
    assert len(pool) == 0


def test_a_pool_goes_on_bit_for_bit(rich: StreamModel, tmp_path: Path) -> None:
    """With a calendar the place in a batch counts, so the batches must be those of before."""
    static = {key: STATIC["ab"[key % 2]] for key in range(40)}
    options = {"batch_size": 7, "expire_after": timedelta(hours=4), "static": static}
    pool = StreamPool(rich, **options)

    def step(each: StreamPool, t: int) -> dict[object, StreamOutput]:
        rng = np.random.default_rng(t)
        readings = {int(key): rng.standard_normal() for key in rng.permutation(40)[:12]}
        given = {key: told(rng, t) for key in readings}
        beside = {name: {key: given[key][name] for key in given} for name in given[min(given)]}
        return each.step(readings, **beside)

    for t in range(15):
        step(pool, t)
    pool.drop(next(iter(pool)))
    pool.snapshot(tmp_path / "snapshot", offset={"partition": 15})
    other = StreamPool(rich, **options)
    step(other, 3)
    assert other.restore(tmp_path / "snapshot") == {"partition": 15}
    assert [*other] == [*pool]
    with pytest.raises(StreamError, match="not after"):
        step(other, 14)
    for t in range(15, 40):
        assert_same(step(other, t), step(pool, t))
        assert [*other] == [*pool]


def test_a_stream_keeps_what_is_static_of_it(rich: StreamModel, tmp_path: Path) -> None:
    stream, other = (rich.create_stream(static=STATIC[key]) for key in "ab")
    stream.snapshot(tmp_path / "snapshot")
    other.restore(tmp_path / "snapshot")
    given = told(np.random.default_rng(0), 0)
    first, second, third = (
        each.step(1.0, **given).quantiles
        for each in (stream, other, rich.create_stream(static=STATIC["b"]))
    )
    np.testing.assert_array_equal(second, first)
    assert not np.array_equal(third, first)


def test_a_restored_pool_expires_as_the_other(model: StreamModel, tmp_path: Path) -> None:
    pool = StreamPool(model, expire_after=2)
    pool.step({"a": [50.0, 3.0], "b": [50.0, 3.0]})
    pool.step({"b": [50.0, 3.0]})
    pool.snapshot(tmp_path / "snapshot")
    other = StreamPool(model, expire_after=2)
    other.restore(tmp_path / "snapshot")
    for there in (["a", "b"], ["b"], []):
        for each in (pool, other):
            each.step({})
            assert [*each] == there


def test_the_batch_fits_the_cache(model: StreamModel, rich: StreamModel) -> None:
    for each in (model, rich):
        size = sum(array.nbytes for array in StreamPool(each)._slots._initial)
        assert StreamPool(each).batch_size == min(max(2**20 // size, 8), 128)
    assert StreamPool(model, batch_size=5).batch_size == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"batch_size": "all"}, "`batch_size` must be an integer"),
        ({"expire_after": 0}, "`expire_after` must be at least 1"),
        ({"expire_after": 1.5}, "`expire_after` must be an integer"),
        ({"expire_after": timedelta(0)}, "`expire_after` must be above 0"),
    ],
)
def test_wrong_options_are_named(model: StreamModel, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamPool(model, **options)
