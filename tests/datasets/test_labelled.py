import numpy as np
import pandas as pd
import pytest

from xlstm_ts.datasets.labelled import fetch_asd, fetch_skab
from xlstm_ts.datasets.registry import DATASETS


@pytest.mark.parametrize("name", DATASETS["asd"])
def test_asd(shared, name):
    train, test, label, events = fetch_asd(name)
    assert (train.shape, test.shape) == ((8640, 19), (4320, 19))
    for part in (train, test):
        assert (part.dtypes == np.float64).all()
        assert part.notna().all(axis=None)
    assert test.index[0] == train.index[-1] + 1
    assert label.index.equals(test.index)
    marked = pd.Series(False, index=test.index)
    for event in events.itertuples():
        marked.loc[event.start : event.end] = True
        assert event.channels == tuple(sorted(set(event.channels)))
        assert 0 <= event.channels[0] <= event.channels[-1] < 19
    assert (marked == label).all()


def test_asd_counts_from_zero(shared):
    events = fetch_asd("omi-1").events
    assert len(events) == 7
    assert events["start"].iloc[0] == 8640 + 760
    assert events["channels"].iloc[3] == (6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)


@pytest.mark.parametrize("name", DATASETS["skab"])
def test_skab(shared, name):
    readings, anomaly, changepoint = fetch_skab(name)
    assert readings.shape[1] == 8
    assert readings.index.name == "datetime"
    assert readings.index.is_monotonic_increasing
    assert (readings.dtypes == np.float64).all()
    assert readings.notna().all(axis=None)
    assert anomaly.index.equals(readings.index)
    assert (anomaly.dtype, changepoint.dtype) == (bool, bool)
    # The closing of the valve comes after a first part that detectors are trained on.
    assert not anomaly.iloc[:400].any()
    assert anomaly.any() == changepoint.any() == (name != "anomaly-free")


def test_skab_values(shared):
    run = fetch_skab("valve1/0")
    assert (len(run.readings), int(run.anomaly.sum())) == (1147, 401)
    assert run.readings["Accelerometer1RMS"].iloc[0] == 0.0265878
    assert run.readings.index[0] == pd.Timestamp("2020-03-09 10:14:33")
    assert len(fetch_skab("anomaly-free").readings) == 9405


@pytest.mark.parametrize(("fetch", "family"), [(fetch_asd, "asd"), (fetch_skab, "skab")])
def test_what_is_missing_is_named(tmp_path, fetch, family, no_network):
    with pytest.raises(ValueError, match=r"`name` must be one of .*, got 'nothing'"):
        fetch("nothing")
    with pytest.raises(OSError, match="Place the file there"):
        fetch(data_home=tmp_path)
    assert len(no_network) == (family == "skab")  # nothing is published that could be loaded
