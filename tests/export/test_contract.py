"""The contract survives its text and refuses what it does not know."""

import json

import pytest

from xlstm_ts.export.contract import Contract, StateArray

CONTRACT = Contract(
    channels=("a", "b"),
    horizon=3,
    quantiles=(0.1, 0.6),
    step="h",
    state=(
        StateArray(name="m", shape=(2, 1), initial=-1e30),
        StateArray(name="last", shape=(1, 2), initial=(0.5, 3.0)),
    ),
    library_version="0",
    units=("kW", "m³/h"),
)


def test_round_trip() -> None:
    assert Contract.from_json(CONTRACT.to_json()) == CONTRACT


def test_median_is_the_level_nearest_to_one_half() -> None:
    assert CONTRACT.median == 1


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"version": None}, {"channels": None}, {"unknown": 1}]
)
def test_unknown_texts_are_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(CONTRACT.to_json()), **change})
    with pytest.raises(ValueError, match="contract"):
        Contract.from_json(text)
