"""Lines become readings, and what cannot be one is named."""

import json
import math
import re
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from xlstm_ts.cli.feeds import CsvRows, ReadingParser
from xlstm_ts.columns import Column
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract

PLAIN = Contract(
    channels=("a", "b"), horizon=2, quantiles=(0.5,), step="h", state=(), library_version="0"
)
BESIDE = Contract(
    channels=("a",),
    horizon=2,
    quantiles=(0.5,),
    step="h",
    state=(),
    library_version="0",
    columns=(
        Column(name="visitors", role="past"),
        Column(name="promo", role="known"),
        Column(name="site", role="static", category="north"),
    ),
)


def parser(contract: Contract = PLAIN, **options: object) -> ReadingParser:
    return ReadingParser(contract, **{"report": pytest.fail, **options})


def test_json_line() -> None:
    line = b'{"b": null, "a": 1, "time": "2026-01-31T12:00Z", "id": 7}'
    reading = parser(key="id").from_json(line)
    assert reading.key == 7
    assert reading.values[0] == 1.0
    assert math.isnan(reading.values[1])
    assert reading.time == datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert reading.shown == "2026-01-31T12:00Z"
    assert reading.covariates is None


def test_covariates_by_name() -> None:
    record = {"a": 1, "visitors": 50, "promo": 1, "site": "north", "future": {"promo": [0, None]}}
    reading = parser(BESIDE).from_json(json.dumps(record))
    assert reading.covariates == {"visitors": 50, "promo": 1}
    assert reading.future == {"promo": [0, None]}
    assert reading.static == {"site": "north"}


def test_single_channel_may_be_a_number() -> None:
    contract = Contract(
        channels=("a",), horizon=2, quantiles=(0.5,), step=None, state=(), library_version="0"
    )
    reading = parser(contract).from_json(b"21.5", key="pump 1")
    assert (reading.key, reading.values) == ("pump 1", [21.5])


def test_counted_readings_are_told_no_time() -> None:
    contract = Contract(
        channels=("a",), horizon=2, quantiles=(0.5,), step=None, state=(), library_version="0"
    )
    reading = parser(contract).from_json(b'{"a": 1, "time": 17}')
    assert (reading.time, reading.shown) == (None, 17)


@pytest.mark.parametrize("time", [1_706_702_400, "1706702400", 1_706_702_400_000])
def test_unix_time(time: object) -> None:
    reading = parser().from_json(json.dumps({"a": 1, "b": 2, "time": time}))
    assert reading.time == np.datetime64("2024-01-31T12:00")
    assert reading.shown == time


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "It is not JSON"),
        (b"\xff\xfe", "It is not JSON"),
        (b"[1, 2]", r'A reading is an object such as {"a": 0.5, "b": 0.5}, got \[1, 2\]'),
        (b"3", "A reading is an object"),
        (b'{"a": 1}', "lacks b, id; a number that is not known is null"),
        (b'{"a": 1, "b": 2, "id": 1.5}', "The key id must be a text or an integer, got 1.5"),
        (b'{"a": 1, "b": 2, "id": ""}', "The key id must be a text"),
        (b'{"a": 1, "b": 2, "id": "x", "time": 12}', "The time must be such as 2026-01-31T12:00"),
    ],
)
def test_unusable_line(line: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parser(key="id").from_json(line)


def test_unknown_fields_are_named_once() -> None:
    said: list[str] = []
    reader = parser(report=said.append)
    for _ in range(2):
        reader.from_json(b'{"a": 1, "b": 2, "c": 3}')
    reader.from_json(b'{"a": 1, "b": 2, "d": 3, "time": "2026-01-31"}')
    ignored = "field {!r} is ignored: the model knows no such column{}."
    hint = "; if it is the time, say so by --time"
    assert said == [ignored.format("c", hint), ignored.format("d", "")]


def test_a_field_that_may_name_streams_is_told_so() -> None:
    said: list[str] = []
    reader = parser(report=said.append)
    reader.from_json(b'{"a": 1, "b": 2, "pump": "north", "time": "2026-01-31"}')
    reader.from_json(b'{"a": 1, "b": 2, "at": "2026-01-31", "c": "4", "time": "2026-01-31"}')
    hint = "if it names the stream of a reading, say so by --key"
    assert [hint in one for one in sorted(said)] == [False, False, True]


@pytest.mark.parametrize("value", ["", None, "n/a", "N/A", " NaN ", "null", "#N/A", float("nan")])
def test_missing_values(value: object) -> None:
    """Those that `fit` takes as missing."""
    reading = parser().from_json(json.dumps({"a": value, "b": "2.5"}))
    assert math.isnan(reading.values[0])
    assert (reading.values[1], reading.faults) == (2.5, {})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a": "warm", "b": 2}', 'a is "warm", no number within float32: it is taken as missing'),
        (b'{"a": true, "b": 2}', "a is true, no number"),
        (b'{"a": [1], "b": 2}', r"a is \[1\], no number"),
        (b'{"a": 1%s, "b": 2}' % (b"0" * 400), "a is 10*[.]{3}, no number"),
        (b'{"a": -Infinity, "b": 2}', "a is -Infinity, no number"),
        (b'{"a": -1, "b": 2}', "a is -1, which is not above -1: it is taken as missing"),
    ],
)
def test_a_value_that_cannot_be_used_is_missing_and_told(line: bytes, fault: str) -> None:
    reading = parser(replace(PLAIN, transform="log1p")).from_json(line)
    assert math.isnan(reading.values[0])
    assert reading.values[1] == 2
    (name,) = reading.faults
    assert (name, bool(re.match(fault, reading.faults[name]))) == ("a", True)


def test_rows_of_csv() -> None:
    rows = CsvRows(b'\xef\xbb\xbftime,a,"b"')
    reading = parser().from_cells(rows.read(b"2026-01-31 12:00,1.5,"))
    assert reading.values[0] == 1.5
    assert math.isnan(reading.values[1])
    assert reading.time == datetime(2026, 1, 31, 12)
    assert parser().from_cells(rows.read(b",1,NA")).time is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"t,1", "The row has 2 cells, the header 3"),
        (b'"t,1,2', "not a row of comma-separated values"),
        (b"\xff,1,2", "not a row of comma-separated values in UTF-8"),
    ],
)
def test_unusable_row(line: bytes, message: str) -> None:
    rows = CsvRows(b"time,a,b")
    with pytest.raises(StreamError, match=message):
        parser().from_cells(rows.read(line))


def test_unusable_header() -> None:
    with pytest.raises(StreamError, match="must name each column once, got 'a', 'a'"):
        CsvRows(b"a,a")
    with pytest.raises(StreamError, match="the header of a CSV, and lacks b; it has time, a"):
        parser().check_header(["time", "a"])
    with pytest.raises(StreamError, match="lacks ds"):
        parser(time="ds").check_header(["a", "b"])


def test_csv_has_no_room_for_what_is_known_ahead() -> None:
    with pytest.raises(StreamError, match=r"is told promo of the next readings.*give JSON lines"):
        parser(BESIDE).check_header(["a", "visitors", "promo"])
