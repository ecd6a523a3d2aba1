import shutil

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.datasets.loaders import fetch_ett, fetch_m4, fetch_nab, fetch_weather
from xlstm_ts.datasets.registry import DATASETS
from xlstm_ts.exceptions import SeriesError

FETCHERS = {"ett": fetch_ett, "nab": fetch_nab, "m4": fetch_m4}


def is_regular(index):
    return len(set(np.diff(index.to_numpy()))) == 1


def test_ett(shared):
    frame = fetch_ett()
    assert frame.shape == (17420, 7)
    assert list(frame.columns) == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    assert (frame.dtypes == np.float64).all()
    assert frame.index.name == "date"
    assert frame.index.dtype == "datetime64[ns]"
    assert frame.index.freq == pd.tseries.frequencies.to_offset("h")
    assert frame.index[[0, -1]].tolist() == [
        pd.Timestamp("2016-07-01 00:00"),
        pd.Timestamp("2018-06-26 19:00"),
    ]
    assert frame.iloc[0, 0] == 5.827000141143799
    assert frame.iloc[-1, -1] == 9.56700038909912
    assert frame.notna().all(axis=None)


def test_weather_is_returned_as_published(shared):
    frame = fetch_weather()
    assert frame.shape == (52696, 21)
    assert (frame.dtypes == np.float64).all()
    assert frame.index.name == "date"
    assert frame.index.freq is None
    assert frame.index[frame.index.duplicated()].tolist() == [pd.Timestamp("2020-05-12 06:00")]
    assert (frame == -9999.0).sum().loc[lambda count: count > 0].to_dict() == {
        "wv (m/s)": 1,
        "max. PAR (\u00b5mol/m\u00b2/s)": 30,
        "OT": 50,
    }
    assert frame.iloc[0].iloc[[0, -1]].tolist() == [1008.89, 428.1]
    assert frame.iloc[-1].iloc[[0, -1]].tolist() == [978.24, 436.5]


def test_weather_names_are_whole(shared):
    names = fetch_weather().columns
    assert not names.str.contains("\ufffd").any()
    assert {"SWDR (W/m\u00b2)", "PAR (\u00b5mol/m\u00b2/s)"} <= set(names)


def test_weather_recipe_for_a_regular_series(shared):
    weather = fetch_weather()
    clean = weather[~weather.index.duplicated()].asfreq("10min").replace(-9999.0, np.nan)
    assert len(clean) == 366 * 144
    assert is_regular(clean.index)
    assert clean["T (degC)"].isna().sum() == 9


@pytest.mark.parametrize(
    ("name", "length", "freq", "first", "last", "n_windows"),
    [
        ("ambient_temperature_system_failure", 7267, None, 69.88083514, 72.58408858, 2),
        ("cpu_utilization_asg_misconfiguration", 18050, "5min", 85.835, 12.129000000000001, 1),
        ("ec2_request_latency_system_failure", 4032, None, 45.868, 30.962, 3),
        ("machine_temperature_system_failure", 22695, None, 73.96732207, 96.90386085, 4),
        ("nyc_taxi", 10320, "30min", 10844, 26288, 5),
        ("rogue_agent_key_hold", 1882, None, 0.06453452400000001, 0.0, 2),
        ("rogue_agent_key_updown", 5315, None, 1.04725631, 0.0, 2),
    ],
)
def test_nab(shared, name, length, freq, first, last, n_windows):
    series, windows = fetch_nab(name)
    assert series.name == name
    assert series.dtype == np.float64
    assert series.index.name == "timestamp"
    assert series.index.dtype == "datetime64[ns]"
    assert series.index.freqstr == freq
    assert is_regular(series.index) == (freq is not None)
    assert (len(series), series.iloc[0], series.iloc[-1]) == (length, first, last)
    assert list(windows.columns) == ["start", "end"]
    assert (windows.dtypes == "datetime64[ns]").all()
    assert len(windows) == n_windows
    assert (windows["start"] < windows["end"]).all()
    assert windows.stack().isin(series.index).all()


def test_nab_keeps_the_clock_changes(shared):
    latency = fetch_nab("ec2_request_latency_system_failure").series
    assert (latency.index == "2014-03-09 03:00").sum() == 12
    machine = fetch_nab("machine_temperature_system_failure").series
    assert machine.index.duplicated().sum() == 12
    assert not machine.index.is_monotonic_increasing


def test_m4(shared):
    train, test = fetch_m4()
    for part in (train, test):
        assert list(part.columns) == ["unique_id", "ds", "y"]
        assert part["ds"].dtype == np.int64
        assert part["y"].dtype == np.float64
        assert part["y"].notna().all()
        assert part["unique_id"].drop_duplicates().tolist() == [f"H{i}" for i in range(1, 415)]
    lengths = train.groupby("unique_id", sort=False).size()
    assert lengths.value_counts().to_dict() == {960: 245, 700: 169}
    assert (test.groupby("unique_id").size() == 48).all()
    both = pd.concat([train, test])
    assert (both.groupby("unique_id")["ds"].diff().dropna() == 1).sum() == len(both) - 414
    assert (both.groupby("unique_id")["ds"].min() == 1).all()
    assert train["y"].iloc[[0, -1]].tolist() == [605.0, 17.0]
    assert test["y"].iloc[[0, -1]].tolist() == [619.0, 24.0]


@pytest.mark.parametrize("family", FETCHERS)
def test_unknown_name_lists_the_known(family):
    with pytest.raises(ValueError, match=r"`name` must be one of .*, got 'nothing'") as err:
        FETCHERS[family]("nothing")
    assert all(repr(name) in str(err.value) for name in DATASETS[family])


def test_nothing_is_downloaded(shared, no_network):
    fetch_ett()
    fetch_weather()
    fetch_nab()
    fetch_m4()
    assert no_network == []


@pytest.mark.parametrize("fetch", [fetch_ett, fetch_weather, fetch_nab, fetch_m4])
def test_missing_file_says_where_to_put_it(tmp_path, fetch):
    with pytest.raises(OSError, match="Place the file there"):
        fetch(data_home=tmp_path)


def test_tampered_copy_is_refused(shared, tmp_path):
    path = tmp_path / "ett" / "ETTh1.csv"
    path.parent.mkdir()
    shutil.copyfile(shared / "ett" / "ETTh1.csv", path)
    assert len(fetch_ett(data_home=tmp_path)) == 17420
    path.write_bytes(path.read_bytes().replace(b"30.531", b"31.531", 1))
    with pytest.raises(SeriesError, match=r"ETTh1\.csv is not the published file"):
        fetch_ett(data_home=tmp_path)
