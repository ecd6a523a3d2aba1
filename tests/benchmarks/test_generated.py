import importlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def generated(monkeypatch):
    # Scripts import what lies beside them by its bare name.
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("_generated")


def test_only_together_are_the_sensors_of_a_pair_wrong(generated):
    stream = generated.pair(0)
    apart = np.zeros(len(stream.readings), dtype=bool)
    for span in stream.spans:
        apart[span.start : span.stop] = True
    one, other = stream.readings.T
    assert np.std((one - other)[~apart]) < 0.2
    assert np.std((one - other)[apart]) > 0.8
    changes = np.diff(other)
    inside = apart[1:] & apart[:-1]
    assert np.std(changes[inside]) < 1.2 * np.std(changes[~inside])
    assert np.abs(changes[inside]).max() <= np.abs(changes[~inside]).max()
    assert np.abs(other[apart]).max() <= np.abs(other[~apart]).max()


def test_clean_days_of_a_machine_are_clean(generated):
    stream = generated.machine(0)
    assert stream.readings.shape == (generated.DAYS * generated.DAY, 5)
    assert min(span.start for span in stream.spans) >= generated.CLEAN_DAYS * generated.DAY
    assert len(set(stream.kinds)) == 8
    assert len(stream.spans) == len(stream.kinds) == len(stream.channels) == generated.FAULTS
