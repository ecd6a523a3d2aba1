import doctest

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from xlstm_ts.datasets import synthetic
from xlstm_ts.datasets.faults import FAULT_KINDS
from xlstm_ts.datasets.synthetic import CHANNELS, make_sensor_stream


@pytest.fixture(scope="module")
def stream():
    return make_sensor_stream(random_state=0)


def equal(left, right):
    for ours, theirs in zip(left, right, strict=True):
        assert_frame_equal(ours, theirs, check_exact=True)


def test_shapes_and_types(stream):
    for frame in (stream.readings, stream.clean, stream.labels):
        assert frame.shape == (2688, 5)
        assert list(frame.columns) == list(CHANNELS)
        assert frame.index.name == "date"
        assert frame.index.dtype == "datetime64[ns]"
        assert frame.index.freqstr == "h"
    assert (stream.readings.dtypes == np.float64).all()
    assert (stream.labels.dtypes == np.bool_).all()
    assert stream.clean.notna().all(axis=None)
    assert list(stream.faults.columns) == ["start", "end", "kind", "channel"]
    assert len(stream.faults) == 10


def test_same_seed_same_bits(stream):
    equal(stream, make_sensor_stream(random_state=0))
    equal(stream, make_sensor_stream(random_state=np.random.default_rng(0)))
    assert (make_sensor_stream(random_state=1).clean != stream.clean).any(axis=None)
    assert (make_sensor_stream().clean != make_sensor_stream().clean).any(axis=None)


@pytest.mark.parametrize("n_faults", [0, 1, 26])
def test_faults_leave_clean_signal_and_gaps_alone(stream, n_faults):
    other = make_sensor_stream(n_faults=n_faults, random_state=0)
    assert_frame_equal(other.clean, stream.clean, check_exact=True)
    assert_frame_equal(other.readings.isna(), stream.readings.isna())
    assert len(other.faults) == n_faults
    assert other.faults.dtypes.equals(stream.faults.dtypes)


@pytest.mark.parametrize("seed", range(5))
def test_labels_mark_exactly_what_changed(seed):
    stream = make_sensor_stream(n_faults=20, missing=0.0, random_state=seed)
    assert_frame_equal(stream.readings != stream.clean, stream.labels)
    assert set(stream.faults["kind"]) == set(FAULT_KINDS)
    assert set(stream.faults["channel"]) == set(CHANNELS)


def test_table_of_faults_matches_labels(stream):
    marked = stream.labels & False
    for fault in stream.faults.itertuples():
        marked.loc[fault.start : fault.end, fault.channel] = True
    assert_frame_equal(marked, stream.labels)
    assert stream.faults["start"].is_monotonic_increasing


@pytest.mark.parametrize("fault_free", [0.0, 0.5, 0.75])
def test_first_part_is_fault_free(fault_free):
    labels = make_sensor_stream(fault_free=fault_free, random_state=3).labels
    assert not labels.iloc[: int(2688 * fault_free) + 1].any(axis=None)
    assert labels.any(axis=None)


@pytest.mark.parametrize("missing", [0.0, 0.01, 0.1, 0.5])
def test_missing_rate(missing):
    readings = make_sensor_stream(20_000, missing=missing, random_state=0).readings
    # Four standard deviations of the singles and of the lengths of the bursts, and half a burst.
    tolerance = 4 * np.sqrt(missing / 20_000) + 4 / 20_000
    np.testing.assert_allclose(readings.isna().mean(), missing, rtol=0, atol=tolerance)


def test_missing_readings_come_alone_and_in_bursts():
    gaps = make_sensor_stream(missing=0.05, random_state=0).readings.isna()
    silent = gaps.all(axis=1)
    runs = silent.groupby((~silent).cumsum()).sum()
    assert runs.max() >= 4
    assert (gaps.sum(axis=1) == 1).sum() > 100


@pytest.mark.parametrize("freq", ["h", "15min"])
def test_day_is_the_season_and_not_the_whole_story(freq):
    clean = make_sensor_stream(6000, n_faults=0, freq=freq, random_state=0).clean
    day = int(pd.Timedelta("1D") / clean.index.freq)
    for name in CHANNELS:
        assert 0.4 < clean[name].autocorr(day) < 0.95
        assert clean[name].autocorr(day // 2) < 0
        naive_error = (clean[name] - clean[name].shift(day)).std()
        assert naive_error > 0.3 * clean[name].std()


def test_sensors_are_related():
    clean = make_sensor_stream(n_faults=0, random_state=0).clean
    load = clean["load_pct"]
    assert clean["motor_current_A"].corr(load) > 0.98
    assert clean["vibration_mm_s"].corr(load) > 0.8
    assert clean["pressure_bar"].corr(load) < -0.8
    temperature = clean["bearing_temperature_C"]
    lagged = [temperature.corr(load.shift(lag)) for lag in range(8)]
    assert 1 <= int(np.argmax(lagged)) <= 4


def test_weekend_is_quieter_and_values_are_plausible():
    clean = make_sensor_stream(n_faults=0, random_state=0).clean
    weekend = clean.index.day_of_week >= 5
    assert clean.loc[weekend, "load_pct"].mean() < clean.loc[~weekend, "load_pct"].mean() - 8
    assert (clean.min() > [0, 10, 5, 0.5, 5]).all()
    assert (clean.max() < [115, 80, 80, 7, 8]).all()


def test_wear_shows_over_months():
    clean = make_sensor_stream(24 * 365, n_faults=0, random_state=0).clean
    quarter = clean["vibration_mm_s"].groupby(clean.index.quarter).mean()
    assert quarter.is_monotonic_increasing


@pytest.mark.parametrize("n_readings", [1, 2, 13])
def test_short_streams(n_readings):
    stream = make_sensor_stream(n_readings, n_faults=0, random_state=0)
    assert stream.readings.shape == (n_readings, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_readings": 1000.5}, r"`n_readings` must be a whole number, got 1000\.5"),
        ({"n_faults": 1.5}, r"`n_faults` must be a whole number, got 1\.5"),
        ({"n_readings": 0}, r"`n_readings` must be at least 1, got 0; use"),
        ({"n_faults": -1}, r"`n_faults` must be from 0 to 26 .*, got -1"),
        ({"n_faults": 27}, r"`n_faults` must be from 0 to 26 .*, got 27; raise `n_readings`"),
        ({"missing": -0.1}, r"`missing` must be a share from 0 to 0\.5, got -0\.1; use"),
        ({"missing": 0.6}, r"`missing` must be a share from 0 to 0\.5, got 0\.6; use"),
        ({"missing": float("nan")}, r"`missing` .* got nan"),
        ({"fault_free": 1.0}, r"`fault_free` must be from 0 to below 1, got 1\.0; use"),
        ({"freq": "MS"}, r"`freq` must be a fixed step of at most 12 hours, got 'MS'; use"),
        ({"freq": "bh"}, r"`freq` .* got 'bh'"),
        ({"freq": "D"}, r"`freq` .* got 'D'"),
        ({"freq": "often"}, r"`freq` .* got 'often'"),
    ],
)
def test_bad_arguments_name_value_and_cure(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_sensor_stream(**arguments)


def test_examples_run():
    assert doctest.testmod(synthetic).failed == 0
