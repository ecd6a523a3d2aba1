"""The rule looks at the band that was forecast for the reading, and at nothing else."""

import json

import numpy as np
import pytest

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.alerts import Alert, BandRule


def contract(*quantiles: float) -> Contract:
    return Contract(
        channels=("a", "b"),
        horizon=2,
        quantiles=quantiles,
        step=None,
        state=(),
        library_version="0",
    )


def rule(margin: float = 0.0) -> BandRule:
    expecting = BandRule(contract(0.1, 0.5, 0.9), margin=margin)
    bands = np.array([[[1, 2, 3], [10, 20, 30]], [[-9, 0, 9], [-9, 0, 9]]], np.float32)
    expecting.expect("pump", bands)
    return expecting


@pytest.mark.parametrize(
    ("margin", "values", "alerts"),
    [
        (0.0, [3.0, 10.0], []),
        (0.0, [3.5, 9.0], [Alert("a", 3.5, "above", 3.0), Alert("b", 9.0, "below", 10.0)]),
        (0.5, [3.5, 9.0], []),
        (0.5, [4.5, np.nan], [Alert("a", 4.5, "above", 4.0)]),
    ],
)
def test_outside_of_the_band(margin: float, values: list[float], alerts: list[Alert]) -> None:
    assert rule(margin).check("pump", values) == alerts


def test_first_reading_of_a_key_gives_none() -> None:
    assert rule().check("another", [1e6, 1e6]) == []


def test_state_goes_through_json() -> None:
    before = rule()
    before.expect(("line", (1, "pump")), np.array([[[1, 2, 3]] * 2], np.float32))
    before.expect("new", np.full((2, 2, 3), np.nan, np.float32))
    after = BandRule(contract(0.1, 0.9), margin=0)
    after.restore(json.loads(json.dumps(before.state())))
    assert after.check("pump", [4.0, 20.0]) == [Alert("a", 4.0, "above", 3.0)]
    assert len(after.check(("line", (1, "pump")), [4.0, 0.0])) == 2
    assert after.check("new", [4.0, 20.0]) == []
    assert after.state() == before.state()


def test_a_single_level_is_no_band() -> None:
    with pytest.raises(StreamError, match=r"the level 0.5 alone.*two `quantiles`"):
        BandRule(contract(0.5), margin=0)
    with pytest.raises(ValueError, match="`margin` must be at least 0"):
        BandRule(contract(0.1, 0.9), margin=-1)
