"""A backtest of a panel begins where each series has room, and says which have none."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import read_panel
from xlstm_ts.origins import find_origins

RNG = np.random.default_rng(0)


def series(length: int, *, start: str = "2024") -> pd.Series:
    return pd.Series(RNG.standard_normal(length), pd.date_range(start, periods=length, freq="h"))


FULL, SHORT, LATE = series(100), series(40), series(60, start="2024-01-03")
ENDS = {"a": FULL, "b": SHORT, "c": LATE}


def found(
    parts: dict[str, pd.Series], *, horizon: int = 6, stride: int = 6, **options: object
) -> dict[str, list[int]]:
    whole = {"n_windows": None, "start": None} | options
    panel, origins = find_origins(
        read_panel(pd.concat(parts)), horizon=horizon, stride=stride, **whole
    )
    return {key: each.tolist() for key, each in zip(panel.series, origins, strict=True)}


def test_each_series_has_its_own_last_origins() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(ENDS, n_windows=2) == {"a": [88, 94], "b": [28, 34], "c": [48, 54]}
        assert found({"a": FULL}) == {"a": list(range(40, 100, 6))}


def test_a_time_is_the_same_for_all_and_a_number_is_counted_in_each() -> None:
    # 2024-01-04 12:00 is the 85th hour of the first and the 37th of the third.
    with pytest.warns(SeriesWarning, match="1 of 3 series are left out .* series `b` has 40"):
        assert found(ENDS, start="2024-01-04 12:00") == {"a": [84, 90], "c": [36, 42, 48, 54]}
    assert found(ENDS, start=32, stride=40) == {"a": [32, 72], "b": [32], "c": [32]}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (series(12), "`y` series `z` has 12 readings, too few for 2 forecasts of 6"),
        (series(13), r"`y` series `z` has 1 readings before .* than its season \(24\)"),
        (series(35), r"`y` series `z` has 23 readings before the first origin"),
        (
            series(50).where(np.arange(50) >= 38),
            "`y` series `z` column 'y' has no reading before its first origin",
        ),
    ],
)
def test_series_without_room_are_left_out_and_counted(other: pd.Series, reason: str) -> None:
    with pytest.warns(SeriesWarning, match=f"1 of 2 series are left out of the .*{reason}"):
        assert found({"z": other, "a": FULL}, n_windows=2) == {"a": [88, 94]}
    with pytest.raises(SeriesError, match=reason):
        found({"z": other}, n_windows=2)


def test_of_none_that_can_be_judged_the_first_is_named() -> None:
    with pytest.raises(SeriesError, match=re.escape("`y` series `b` has 40 readings, too few")):
        found({"b": SHORT, "c": LATE}, n_windows=20)
