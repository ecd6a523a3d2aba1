"""A stream reads the dates that a fit reads, or says how."""

from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import pytest

from xlstm_ts.cli.dates import read_date
from xlstm_ts.cli.tables import read_table
from xlstm_ts.exceptions import StreamError

HOURS = pd.date_range("2024-01-05 09:30", periods=30, freq="13h")
FORMATS = [
    "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y/%m/%d %H:%M", "%Y.%m.%d %H:%M:%S",
    "%Y-%m-%d, %H:%M", "%Y%m%dT%H%M%S", "%Y%m%d %H:%M", "%Y-%-m-%-d %-H:%M",
    "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %H:%M:%S,%f", "%d-%b-%Y %H:%M", "%b %d, %Y %H:%M",
    "%d %B %Y %H:%M:%S", "%A, %d %B %Y, %I:%M %p", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M UTC",
    "%Y-%m-%d %H:%M:%S+0130", "%Y-%m-%d %H:%M -02:30", "%Y-%m",
]  # fmt: skip
UNCLEAR = ["%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d.%m.%Y %H:%M", "%m-%d-%y %H:%M"]


@pytest.mark.parametrize("form", FORMATS)
def test_dates_are_those_of_a_fit(form: str, tmp_path: Path) -> None:
    times = HOURS if "d" in form else pd.date_range("2024-01", periods=14, freq="MS")
    texts = times.strftime(form)
    pd.DataFrame({"time": texts, "y": 1.5}).to_csv(tmp_path / "data.csv", index=False)
    expected = read_table(tmp_path / "data.csv").readings.index
    assert [read_date(text) for text in texts] == expected.to_pydatetime().tolist()


@pytest.mark.parametrize("form", UNCLEAR)
def test_of_days_and_months_in_numbers_the_format_is_asked(form: str) -> None:
    text = HOURS[0].strftime(form)
    with pytest.raises(StreamError, match=r"begins with its day or with its month.*--time-format"):
        read_date(text)
    assert read_date(text, form=form) == HOURS[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noon", "cannot be read: write it such as 2026-01-31T12:00 or as unix time, or give"),
        ("2024-02-30", "day is out of range|day .* must be in range"),
        ("2024-01-05 25:00", "hour must be in"),
        ("2024-01-05 13:00 PM", "there is no hour 13 PM"),
        ("5 Floreal 2024", "there is no month Floreal"),
        ("2024-01-05 09:00 and more", "cannot be read"),
    ],
)
def test_what_is_no_date_is_named(text: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        read_date(text)


def test_another_format_than_was_told() -> None:
    with pytest.raises(StreamError, match="does not match format"):
        read_date("2024-01-05", form="%d/%m/%Y")
    zoned = read_date("05/01/2024 +0000", form="%d/%m/%Y %z")
    assert zoned == datetime(2024, 1, 5, tzinfo=timezone.utc)
