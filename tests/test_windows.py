"""A window is a context with, for each of its tokens, exactly the readings that came next."""

from typing import Any

import pytest
import torch

from xlstm_ts.windows import Columns, WindowSampler

CHANNEL = 1000.0


def count(length: int, channels: int) -> torch.Tensor:
    """Return readings 0, 1, 2, ... with `CHANNEL` added once for each channel before."""
    return torch.arange(float(length))[:, None] + CHANNEL * torch.arange(float(channels))


def sampler(*series: torch.Tensor, **changes: Any) -> WindowSampler:
    options = {"groups": 2, "context_length": 12, "patch_length": 3, "horizon": 4, **changes}
    return WindowSampler(series, **options)


@pytest.mark.parametrize(("patch", "horizon"), [(1, 1), (1, 7), (3, 4), (3, 1), (12, 4), (4, 20)])
@pytest.mark.parametrize(("groups", "channels"), [(2, 2), (1, 2), (1, 1), (3, 6)])
def test_targets_follow_their_tokens(patch: int, horizon: int, groups: int, channels: int) -> None:
    cutter = sampler(count(60, channels), groups=groups, patch_length=patch, horizon=horizon)
    windows = cutter.draw(50, generator=torch.Generator().manual_seed(0))
    assert windows.value.shape == windows.observed.shape == (50, 12, channels // groups)
    ends = windows.value[:, patch - 1 :: patch, None]
    ahead = torch.arange(1.0, horizon + 1)[:, None]
    torch.testing.assert_close(windows.target, ends + ahead, atol=0, rtol=0)
    assert (windows.value.diff(dim=1) == 1).all()
    first = windows.value[:, 0, 0]
    assert (first % CHANNEL).max() <= 60 - 12 - horizon
    torch.testing.assert_close(windows.groups * (channels // groups), (first // CHANNEL).long())
    owners = (first // CHANNEL).unique().tolist()
    assert owners == list(range(0, channels, channels // groups))


def test_every_start_is_drawn_and_no_other() -> None:
    cutter = sampler(count(20, 1), groups=1)
    windows = cutter.draw(500, generator=torch.Generator().manual_seed(0))
    assert windows.value[:, 0, 0].unique().tolist() == list(range(20 - 12 - 4 + 1))
    assert windows.target.max() == 19


def test_same_generator_same_windows() -> None:
    cutter = sampler(count(60, 2))
    one, same, other = (
        cutter.draw(8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one.value, same.value)
    assert not torch.equal(one.value, other.value)


@pytest.mark.parametrize("count_wanted", [1, 7, 10_000])
def test_spread_is_even(count_wanted: int) -> None:
    windows = sampler(count(60, 2)[40 - 12 :]).spread(count_wanted)
    last = windows.target[:, -1, :, 0]
    assert (last % CHANNEL).min() == 40
    starts = windows.value[:, 0, 0]
    half = len(starts) // 2
    assert torch.equal(starts[:half] + CHANNEL, starts[half:])
    assert len(starts.unique()) == len(starts)
    if count_wanted > 1000:
        assert (last % CHANNEL).max() == 59
        assert len(starts) == 2 * (60 - 40 - 4 + 1)


def test_gaps_are_marked() -> None:
    series = torch.ones(30, 1)
    series[::5] = torch.nan
    cutter = sampler(series, groups=1, context_length=10, patch_length=1, horizon=3)
    windows = cutter.cut(torch.tensor([0]), torch.tensor([0]))
    assert windows.observed[0, :, 0].tolist() == [0, 1, 1, 1, 1] * 2
    assert windows.value[0, :, 0].tolist() == [0, 1, 1, 1, 1] * 2
    assert windows.target[0, 4].isnan().flatten().tolist() == [True, False, False]


def test_hidden_readings_are_targets_alone() -> None:
    options = {"groups": 1, "columns": [Columns.of(count(30, 3))]}
    open_, hidden = (
        sampler(count(30, 2), **options, hide_readings=hide).spread(5) for hide in (False, True)
    )
    assert hidden.value.shape == open_.value.shape
    assert not hidden.value.any()
    assert not hidden.observed.any()
    assert torch.equal(hidden.target, open_.target)
    assert torch.equal(hidden.covariates, open_.covariates)


def test_static_columns_stand_in_their_place_beside_every_reading() -> None:
    columns = [
        Columns.of(count(length, 3), static=[10.0 * length, -length], place=2)
        for length in (30, 9, 25)  # the second is shorter than a window
    ]
    series = [one.rows[:, :1] for one in columns]
    windows = sampler(*series, groups=1, columns=columns).spread(100)
    before, static, after = windows.covariates.split((2, 2, 1), 2)
    changing = torch.cat((before, after), 2)
    assert torch.equal(static[:, :1].expand_as(static), static)
    assert set(map(tuple, static[:, 0].tolist())) == {(10.0 * n, -n) for n in (30, 9, 25)}
    short = static[:, 0, 0] == 90
    assert changing[short, :7].isnan().all()  # a window of 16 ends with nine rows
    assert torch.equal(
        changing[~short, 1:] - changing[~short, :-1],
        torch.ones(15, 3).double().expand(int((~short).sum()), 15, 3),
    )


def test_no_window_reaches_into_the_next_series() -> None:
    series = [count(20, 1), count(18, 1) + 100, count(9, 1) + 200]
    cutter = sampler(*series, groups=1)
    windows = cutter.draw(500, generator=torch.Generator().manual_seed(0))
    seen = torch.where(windows.observed > 0, windows.value, torch.nan)
    everything = torch.cat((seen.flatten(1), windows.target[:, -1].flatten(1)), 1)
    owner = everything // 100
    assert (owner.nan_to_num(-1).amax(1) == owner.nan_to_num(9).amin(1)).all()
    assert set(owner.nan_to_num(-1).amax(1).tolist()) == {0, 1, 2}
    # The last one is shorter than a window: readings are missing before it, its end is whole.
    short = owner[:, -1] == 2
    assert (windows.observed[short, :, 0].sum(1) == 9 - 4).all()
    assert (windows.target[short, -1, :, 0] == torch.arange(205.0, 209.0)).all()
