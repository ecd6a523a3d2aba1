"""What is made of a CSV file is what is in it, or an error that says where it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.cli.tables import read_table
from xlstm_ts.exceptions import SeriesError

COUNT = np.arange(30)
HOURS = pd.date_range("2024-01-01", periods=30, freq="h")
READINGS = pd.DataFrame({"load": np.sin(COUNT), "flow": np.cos(COUNT)})
SECONDS = (HOURS - pd.Timestamp(0)) // pd.Timedelta("1s")
ROME = pd.date_range("2024-03-31", periods=30, freq="h", tz="Europe/Rome")
HALVES = pd.date_range("2024-01-01", periods=30, freq="500ms")
DAYS = pd.date_range("2024-01-01", periods=30)


def at(index: Any, name: str | None = "when") -> str:
    return READINGS.set_axis(pd.Index(index), axis=0).to_csv(index_label=name)


# The text of a file, its index, and what is said of its time.
TIMES = {
    "dates": (at(HOURS), HOURS, "time from 'when'"),
    "dates without a name": (at(HOURS, None), HOURS, "time from 'Unnamed: 0'"),
    "rows counted by to_csv": (
        READINGS.assign(when=HOURS).to_csv(), HOURS, "time from 'when'",
    ),
    "rows counted by to_csv, no dates": (
        READINGS.to_csv(), COUNT, "readings counted by 'Unnamed: 0'",
    ),
    "integers": (at(10 + 2 * COUNT), 10 + 2 * COUNT, "readings counted by 'when'"),
    "no time": (READINGS.to_csv(index=False), COUNT, "no column of times, rows are counted"),
    "elapsed": (at(COUNT / 10), COUNT, "rows are counted, 'when' rises by one step"),
    "unix s": (at(SECONDS), HOURS, "time from 'when', read as unix seconds (UTC)"),
    "unix ms": (at(SECONDS * 1000), HOURS, "time from 'when', read as unix milliseconds (UTC)"),
    "decimals": (at(SECONDS + 0.0), HOURS, "time from 'when', read as unix seconds (UTC)"),
    "clock change": (
        at(ROME), ROME.tz_convert("UTC"), "time from 'when', by the clock of UTC",
    ),
    "offset": (
        at(HOURS.tz_localize("+02:00")), HOURS.tz_localize("+02:00"),
        "time from 'when', by the clock of UTC+02:00",
    ),
    "fractions": (at([half.isoformat() for half in HALVES]), HALVES, "time from 'when'"),
    "days first": (at(DAYS.strftime("%d/%m/%Y")), DAYS, "time from 'when', day first"),
    "days first, by halves": (
        at(DAYS.strftime("%d/%m/%Y %I:%M %p")), DAYS, "time from 'when', day first",
    ),
    "months first": (at(DAYS.strftime("%m.%d.%y")), DAYS, "time from 'when', month first"),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


@pytest.mark.parametrize("kind", TIMES)
def test_time_is_found_and_said(kind: str, path: Path) -> None:
    text, index, words = TIMES[kind]
    path.write_text(text)
    table = read_table(path)
    assert table.time == words
    assert table.readings.index.equals(pd.Index(index))
    assert list(table.readings) == ["load", "flow"]


def test_columns_left_out_are_named_with_the_reason(path: Path) -> None:
    load = READINGS["load"].astype(object)
    load[6] = "off"
    frame = READINGS.assign(load=load, id=COUNT, on=True, state="on", none=np.nan, big=10**30)
    frame.set_index(HOURS).to_csv(path)
    table = read_table(path)
    assert list(table.readings) == ["flow", "big"]
    assert table.left_out == {
        "load": "holds 'off' in data row 7",
        "id": "counts the rows",
        "on": "is true or false",
        "state": "holds 'on' in data row 1",
        "none": "is empty",
    }
    assert list(read_table(path, targets=["on", "id"]).readings) == ["on", "id"]
    with pytest.raises(SeriesError, match=r"'load' of .*data\.csv .* holds 'off' in data row 7"):
        read_table(path, targets=["flow", "load"])


FAULTS: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "semicolons": (READINGS.to_csv(sep=";", decimal=","), {}, "separator looks wrong, ';'"),
    "tabs": (READINGS.to_csv(sep="\t"), {}, "separator looks wrong"),
    "latin-1": ("Länge\n1\n".encode("latin-1"), {}, r"data\.csv is not UTF-8 .*save it as UTF-8"),
    "nothing": ("", {}, "not a table of comma-separated values: No columns"),
    "ragged": ("a,b\n1,2\n1,2,3\n", {}, "not a table .* line 3, saw 3"),
    "short header": ("a,b\n1,2,3\n1,2,3\n", {}, "more values in a row than names"),
    "header alone": ("a,b\n", {}, "no column of readings: 'a' is empty"),
    "text alone": ("a\nx\n", {}, "no column of readings: 'a' holds 'x' in data row 1"),
    "unknown": (at(HOURS), {"time": "date"}, "no column 'date'; it has when, load, flow"),
    "both": (at(HOURS), {"time": "load", "targets": ["load"]}, "both the time and a target"),
    "one bad time": (at([*HOURS.astype(str)[:-1], "?"]), {}, r"no time in data row 30: '\?'"),
    "two orders": (
        at(["13/01/2024", *DAYS.strftime("%m/%d/%Y")[1:]]), {}, "some dates with their day and",
    ),
    "compact dates": (
        at(HOURS.strftime("%Y%m%d%H%M").astype(int)), {}, "202401010000, 202401010100, ...; write",
    ),
    "readings as time": (at(HOURS), {"time": "load"}, "neither count readings nor are unix time"),
    "empty time": ("a,b\n,1\n,2\n", {"time": "a"}, "neither count readings nor are unix time"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_file_is_named_with_its_cure(fault: str, path: Path) -> None:
    content, options, message = FAULTS[fault]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SeriesError, match=message):
        read_table(path, **options)
