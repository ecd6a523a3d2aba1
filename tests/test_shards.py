"""Frames of readings give what a pool gives, in whatever order their rows come."""

import importlib
import pickle
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import HOURLY, small
from xlstm_ts.exceptions import BackendError
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.shards import GIVEN, Scoring
from xlstm_ts.streaming import StreamPool

KEYS, HOURS = ("a", "b", "c"), 12
START = pd.Timestamp("2024-03-01")


@pytest.fixture(scope="module")
def scoring(graph_path: Path) -> Scoring:
    return Scoring.from_file(graph_path, is_instant=False, margin=0.5)


def readings(keys=KEYS, hours=HOURS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(key, START + pd.Timedelta(hours=hour)) for hour in range(hours) for key in keys]
    frame = pd.DataFrame(rows, columns=["key0", "moment"])
    frame["value0"] = 50 + 10 * rng.standard_normal(len(frame))
    frame["value1"] = 3 + rng.standard_normal(len(frame))
    frame.loc[4, "value1"] = np.nan
    return frame


def numbers(given: pd.DataFrame) -> np.ndarray:
    """Return the quantiles, by key, time and channel."""
    ordered = given.sort_values(["key0", "moment", "channel"], kind="stable")
    levels = np.stack(ordered["levels"].map(np.array))
    return levels.reshape(len(levels), 3, -1).transpose(0, 2, 1)


def test_as_a_pool_gives(scoring: Scoring) -> None:
    frame = readings()
    given = scoring.score(scoring.serve(), frame)
    assert [*given] == ["key0", "moment", *GIVEN]
    pool, outputs = StreamPool(scoring.model()), []
    for moment, rows in frame.groupby("moment"):
        values = rows[["value0", "value1"]].to_numpy()
        told = moment.to_datetime64()
        outputs.append(pool.step(dict(zip(rows["key0"], values, strict=True)), time=told))
    expected = [step[key].quantiles[:, at] for key in KEYS for step in outputs for at in (0, 1)]
    np.testing.assert_array_equal(numbers(given), np.stack(expected).astype(float))
    assert given["error"].isna().all()


def test_alarms_are_readings_outside_of_the_band_before(scoring: Scoring) -> None:
    given = scoring.score(scoring.serve(), readings())
    seen = 0
    for _, rows in given.groupby(["key0", "channel"]):
        for before, now in zip(rows[:-1].itertuples(), rows[1:].itertuples(), strict=True):
            low, _, high = before.levels[:: len(before.levels) // 3]
            slack = 0.5 * (high - low)
            is_out = now.value < low - slack or now.value > high + slack
            assert is_out == (now.alarm in ("below", "above"))
            assert is_out == (not np.isnan(now.bound))
            seen += is_out
    assert seen > 3


def test_order_of_rows_does_not_matter(scoring: Scoring) -> None:
    frame = readings()
    mixed = frame.sample(frac=1, random_state=0, ignore_index=True)
    one, other = (scoring.score(scoring.serve(), rows) for rows in (frame, mixed))
    pd.testing.assert_frame_equal(one, other)


def test_goes_on_in_pieces_and_from_a_snapshot(scoring: Scoring) -> None:
    frame, server = readings(), scoring.serve()
    whole = scoring.score(server, frame)
    first, rest = scoring.serve(), pickle.loads(pickle.dumps(scoring)).serve()
    before = scoring.score(first, frame[:15])
    first.snapshot(kept := BytesIO(), offset={})
    rest.restore(BytesIO(kept.getvalue()))
    after = scoring.score(rest, frame[15:])
    np.testing.assert_array_equal(numbers(pd.concat([before, after])), numbers(whole))


def test_what_cannot_be_used_has_its_error_and_harms_no_other(scoring: Scoring) -> None:
    frame, server = readings(), scoring.serve()
    late, twice, other = frame.iloc[[0, 3, 7]].to_dict("records")
    wrong = [
        late,
        {**twice, "value0": 99.0},
        {**other, "moment": pd.NaT},
        {**other, "key0": None},
        {**other, "moment": START + pd.Timedelta(days=1), "value0": np.inf},
    ]
    clean = scoring.score(scoring.serve(), frame)
    scoring.score(server, frame[:3])
    given = scoring.score(server, pd.concat([frame[3:], pd.DataFrame(wrong)], ignore_index=True))
    errors = given.loc[given["error"].notna() & (given["channel"] == "a")]
    assert len(errors) == len(wrong)
    assert errors["levels"].isna().all()
    text = "\n".join(errors["error"])
    for part in ("not after", "cannot be read as a time", "A key is a text", "beyond float32"):
        assert part in text
    assert text.count("not after") == 2
    np.testing.assert_allclose(
        numbers(given[given["error"].isna()]), numbers(clean)[_after(clean, START)], rtol=1e-5
    )


def _after(given: pd.DataFrame, moment: pd.Timestamp) -> np.ndarray:
    ordered = given.sort_values(["key0", "moment", "channel"], kind="stable")
    return (ordered["moment"] > moment).to_numpy()


def test_silent_keys_are_forgotten_by_the_times_of_readings(graph_path: Path) -> None:
    scoring = Scoring.from_file(
        graph_path,
        is_instant=False,
        margin=0.0,
        expire_after=pd.Timedelta(hours=5).to_pytimedelta(),
    )
    server, frame = scoring.serve(), readings(hours=3)
    scoring.score(server, frame)
    again = frame[:3].assign(moment=START + pd.Timedelta(hours=8))
    one, other = (scoring.score(each, again) for each in (server, scoring.serve()))
    pd.testing.assert_frame_equal(one, other)


def test_instants_go_through_the_hour_that_comes_twice(tmp_path: Path) -> None:
    y = pd.Series(np.sin(np.arange(160) * np.pi / 4), HOURLY, name="load")
    export_onnx(small(calendar=("hour",)).fit(y), tmp_path / "model.onnx")
    scoring = Scoring.from_file(tmp_path / "model.onnx", is_instant=True)
    times = pd.date_range("2024-10-26 22:00", periods=6, freq="h", tz="UTC")
    micros = times.as_unit("us").asi8
    frame = pd.DataFrame({"key0": "a", "key1": "7", "moment": micros, "value0": y[:6].to_numpy()})
    given = scoring.score(scoring.serve(), frame)
    stream = scoring.model().create_stream()
    for levels, value, time in zip(given["levels"], frame["value0"], times, strict=True):
        output = stream.step(value, time=time.to_pydatetime())
        np.testing.assert_allclose(levels, output.quantiles[:, 0].T.ravel(), rtol=1e-5)


def test_a_time_beyond_the_calendar_has_its_error(graph_path: Path) -> None:
    scoring = Scoring.from_file(graph_path, is_instant=True)
    moment = START.tz_localize("UTC").value // 1000
    # Milliseconds that were taken for seconds, before the year 1, and none.
    moments = [moment, 1000 * moment, -(10**17), np.iinfo(np.int64).min]
    frame = pd.DataFrame({"key0": [*"abcd"], "moment": moments, "value0": 1.0, "value1": 2.0})
    given = scoring.score(scoring.serve(), frame)
    errors = given.groupby("key0")["error"].first()
    assert errors.isna().tolist() == [True, False, False, False]
    assert errors[1:].str.contains("cannot be read as a time").all()


def test_workers_import_nothing_heavy() -> None:
    heavy = ("torch", "sklearn", "scipy", "onnx", "matplotlib", "pyspark")
    code = f"import sys, xlstm_ts.shards; sys.exit(any(n in sys.modules for n in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    monkeypatch.delitem(sys.modules, "xlstm_ts.spark", raising=False)
    with pytest.raises(BackendError, match=r"install xlstm-ts\[spark,onnx\]"):
        importlib.import_module("xlstm_ts.spark")


def test_no_graph(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no step graph.*nothing\.onnx"):
        Scoring.from_file(tmp_path / "nothing.onnx", is_instant=True)
