"""A config says what is wrong with it, by name, before anything is built."""

from dataclasses import FrozenInstanceError

import pytest

from xlstm_ts.config import XLSTMConfig


def config(**changes: object) -> XLSTMConfig:
    return XLSTMConfig(**{"n_channels": 3, "horizon": 5, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_channels": 0}, "`n_channels` must be at least 1, got 0"),
        ({"horizon": 0}, "`horizon` must be at least 1, got 0"),
        ({"patch_length": -3}, "`patch_length` must be at least 1, got -3"),
        ({"d_model": 0}, "`d_model` must be at least 1, got 0"),
        ({"n_heads": 0}, "`n_heads` must be at least 1, got 0"),
        ({"expansion": 0}, "`expansion` must be at least 1, got 0"),
        ({"conv_length": 1}, "`conv_length` must be 0, for none, or at least 2; got 1"),
        ({"linear_length": -1}, "`linear_length` must be at least 0, got -1"),
        ({"scaling_span": 1.9}, "`scaling_span` must be at least 2, got 1.9"),
        ({"scaling_span": float("nan")}, "`scaling_span` must be at least 2, got nan"),
        ({"channels": "both"}, "`channels` must be 'independent' or 'mixed', got 'both'"),
        ({"blocks": "msx"}, "`blocks` must be a word .* got 'msx'"),
        ({"d_model": 10, "n_heads": 4}, "`n_heads` must divide `d_model`, got 4 heads for 10"),
        ({"quantiles": ()}, "`quantiles` must increase"),
        ({"quantiles": (0.5, 0.5)}, "`quantiles` must increase"),
        ({"quantiles": (0.9, 0.1)}, "`quantiles` must increase"),
        ({"quantiles": (0.0, 0.5)}, "`quantiles` must increase inside"),
        ({"quantiles": (0.5, 1.0)}, "`quantiles` must increase inside"),
        ({"quantiles": (float("nan"),)}, "`quantiles` must increase inside"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"`dropout` must be in \[0, 1\), got -0.1"),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "groups", "group_channels", "buffer_length", "median"),
    [
        ({}, 3, 1, 1, 1),
        ({"channels": "mixed"}, 1, 3, 1, 1),
        ({"patch_length": 4, "linear_length": 2}, 3, 1, 4, 1),
        ({"patch_length": 4, "linear_length": 9}, 3, 1, 9, 1),
        ({"quantiles": (0.9,)}, 3, 1, 1, 0),
        ({"quantiles": (0.05, 0.1, 0.6, 0.9)}, 3, 1, 1, 2),
        ({"quantiles": (0.25, 0.75)}, 3, 1, 1, 0),
    ],
)
def test_derived_sizes(
    changes: dict[str, object], groups: int, group_channels: int, buffer_length: int, median: int
) -> None:
    made = config(**changes)
    assert (made.groups, made.group_channels) == (groups, group_channels)
    assert (made.buffer_length, made.median) == (buffer_length, median)


def test_is_a_value_that_nobody_edits() -> None:
    assert config() == config()
    assert hash(config()) == hash(config())
    assert config() != config(horizon=6)
    with pytest.raises(FrozenInstanceError):
        config().horizon = 6
