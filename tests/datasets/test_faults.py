from itertools import pairwise

import numpy as np
import pytest

from xlstm_ts.datasets.faults import FAULT_KINDS, SLOT_MINIMUM, Fault, insert_faults, plan_faults

N, HALF_DAY = 240, 12


@pytest.fixture
def clean():
    return np.random.default_rng(0).standard_normal((N, 2)) + np.arange(N)[:, None] / 50


def alter(clean, *, kind, size=0.0):
    fault = Fault(kind=kind, channel=1, start=100, stop=120, size=size)
    return insert_faults(clean, faults=[fault], half_day=HALF_DAY)[100:120, 1]


def test_spike_and_level_shift_add_their_size(clean):
    expected = clean[100:120, 1] - 3.0 * clean[:, 1].std()
    for kind in ("spike", "level_shift"):
        np.testing.assert_array_equal(alter(clean, kind=kind, size=-3.0), expected)


def test_drift_grows_to_its_size(clean):
    growth = (alter(clean, kind="drift", size=4.0) - clean[100:120, 1]) / clean[:, 1].std()
    np.testing.assert_allclose(growth, np.arange(1, 21) / 20 * 4.0)


def test_stuck_holds_the_last_good_reading(clean):
    assert (alter(clean, kind="stuck") == clean[99, 1]).all()


@pytest.mark.parametrize("start", [3, 100])
def test_broken_correlation_reads_half_a_day_away(clean, start):
    fault = Fault(kind="broken_correlation", channel=0, start=start, stop=start + 20, size=0.0)
    faulty = insert_faults(clean, faults=[fault], half_day=HALF_DAY)
    positions = np.arange(start, start + 20) - HALF_DAY
    np.testing.assert_array_equal(faulty[start : start + 20, 0], clean[positions, 0])


def test_noise_is_repeatable_and_has_its_size():
    readings = np.zeros((4000, 1))
    readings[0] = 1e3  # the scale is not zero
    fault = Fault(kind="noise", channel=0, start=100, stop=3900, size=0.5)
    noise = insert_faults(readings, faults=[fault], half_day=HALF_DAY)[100:3900, 0]
    np.testing.assert_allclose(noise.std(), 0.5 * readings.std(), rtol=0.05)
    again = insert_faults(readings, faults=[fault], half_day=HALF_DAY)[100:3900, 0]
    np.testing.assert_array_equal(noise, again)


def test_oscillation_swings_to_its_size(clean):
    swing = (alter(clean, kind="oscillation", size=2.0) - clean[100:120, 1]) / clean[:, 1].std()
    np.testing.assert_allclose(swing[:6], [1, 2, 1, -1, -2, -1])


def test_gain_stretches_about_the_mean(clean):
    mean = clean[:, 1].mean()
    expected = mean + 1.5 * (clean[100:120, 1] - mean)
    np.testing.assert_allclose(alter(clean, kind="gain", size=0.5), expected)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_only_the_fault_changes_and_the_input_never(clean, kind):
    before = clean.copy()
    fault = Fault(kind=kind, channel=1, start=100, stop=120, size=2.0)
    changed = insert_faults(clean, faults=[fault], half_day=HALF_DAY) != clean
    assert changed[100:120, 1].all()
    assert changed.sum() == 20
    np.testing.assert_array_equal(clean, before)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_faults", [0, 1, 5, 12])
def test_plan_fits_and_does_not_overlap(seed, n_faults):
    start, stop = 7, 7 + SLOT_MINIMUM * n_faults
    faults = plan_faults(
        np.random.default_rng(seed), n_faults=n_faults, n_channels=3, start=start, stop=stop
    )
    assert len(faults) == n_faults
    edges = [edge for fault in faults for edge in (fault.start, fault.stop)]
    assert all(edge < following for edge, following in pairwise(edges))
    assert not edges or (start < edges[0] and edges[-1] <= stop)
    if n_faults >= len(FAULT_KINDS):
        assert {fault.kind for fault in faults} == set(FAULT_KINDS)
        assert {fault.channel for fault in faults} == {0, 1, 2}
