"""Pools: every window once among the blocks, each block in its turn, by step and seed alone."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_ts.pools import (
    BLOCKS,
    LEAST_STEPS,
    Place,
    PoolSampler,
    cut_blocks,
    own_series,
    spread_places,
)
from xlstm_ts.windows import Columns, WindowSampler

COUNTS = [0, 7, 30, 500, 0, 12, 90, 90, 1]
LENGTH = 10


def windows_of(places: list[Place]) -> list[tuple[int, int]]:
    """Return series and start of the windows within places."""
    return [
        (place.series, start)
        for place in places
        for start in range(place.start, max(place.start, place.stop - LENGTH) + 1)
    ]


@pytest.mark.parametrize("pool_rows", [160, 200, 729, 10_000])
def test_blocks_have_every_window_once_and_are_small(pool_rows: int) -> None:
    blocks = cut_blocks(COUNTS, range(len(COUNTS)), length=LENGTH, pool_rows=pool_rows)
    expected = [
        (series, start)
        for series, count in enumerate(COUNTS)
        if count
        for start in range(max(1, count - LENGTH + 1))
    ]
    assert windows_of(list(itertools.chain(*blocks))) == expected
    if pool_rows < sum(COUNTS):
        assert max(sum(p.stop - p.start for p in block) for block in blocks) <= pool_rows // BLOCKS
    else:
        assert len(blocks) == 1


def test_a_pool_of_less_than_two_windows_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="`pool_rows` must be at least 160, got 159"):
        cut_blocks(COUNTS, range(len(COUNTS)), length=LENGTH, pool_rows=159)


def pool(*, blocks: int, max_steps: int, seed: int = 0) -> tuple[PoolSampler, list[int]]:
    """Return a pool, and the blocks that it has read."""
    found: list[int] = []

    def read(places: Any) -> list[Any]:
        found.append(places[0].series)
        rows = torch.full((12, 1), float(places[0].series))
        return [(rows, Columns.none(12))]

    def make(parts: list[Any]) -> WindowSampler:
        series, columns = zip(*parts, strict=True)
        lengths = {"context_length": 8, "patch_length": 2, "horizon": 2}
        return WindowSampler(series, columns=columns, groups=1, **lengths)

    places = [[Place(number, 0, 12)] for number in range(blocks)]
    return PoolSampler(places, read=read, make=make, max_steps=max_steps, seed=seed), found


def test_each_step_has_eight_blocks_and_each_block_its_turn() -> None:
    sampler, found = pool(blocks=20, max_steps=400)
    for step in range(400):
        held = sampler.at(step).rows.unique()
        assert len(held) == BLOCKS
    assert sorted(found[:20]) == list(range(20))
    assert found[:20] != sorted(found[:20])
    # One is read every 20 steps, and none anew that is there.
    assert len(found) <= BLOCKS + 19


def test_the_pool_of_a_step_depends_on_nothing_before() -> None:
    sampler, _ = pool(blocks=20, max_steps=400)
    rows = [sampler.at(step).rows for step in range(0, 400, 37)]
    for number, step in enumerate(range(0, 400, 37)):
        fresh, _ = pool(blocks=20, max_steps=400)
        assert torch.equal(fresh.at(step).rows, rows[number])
    other, _ = pool(blocks=20, max_steps=400, seed=1)
    assert not torch.equal(other.at(0).rows, rows[0])


def test_few_blocks_stay_in_order_and_short_trainings_do_not_read_for_one_step() -> None:
    sampler, found = pool(blocks=BLOCKS, max_steps=100)
    for step in range(100):
        sampler.at(step)
    assert found == list(range(BLOCKS))
    sampler, found = pool(blocks=1000, max_steps=100)
    for step in range(100):
        sampler.at(step)
    assert len(found) == BLOCKS + 99 // LEAST_STEPS


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_processes_share_out_all_series_with_about_as_many_windows(count: int) -> None:
    counts = np.random.default_rng(0).integers(0, 60, 200)
    counts[[0, -1]] = 0
    shards = [
        own_series(
            counts.tolist(),
            length=LENGTH,
            own=lambda size, rank=rank: slice(size * rank // count, size * (rank + 1) // count),
        )
        for rank in range(count)
    ]
    assert [n for shard in shards for n in shard] == list(range(200))
    windows = np.where(counts > 0, np.maximum(1, counts - LENGTH + 1), 0)
    sizes = [windows[list(shard)].sum() for shard in shards]
    assert max(sizes) - min(sizes) <= 2 * windows.max()


@pytest.mark.parametrize("most", [5, 60, 10_000])
def test_spread_windows_are_those_of_a_sampler_of_all_tails(most: int) -> None:
    lengths = [5, 12, 40, 300, 33]
    counts = [0, 6, 36, 270, 33]
    context, horizon = 8, 2
    series = [1000.0 * n + torch.arange(size)[:, None] for n, size in enumerate(lengths)]
    tails = [
        one[max(0, count - context) :]
        for one, count in zip(series, counts, strict=True)
        if count < len(one)
    ]
    options = {"groups": 1, "context_length": context, "patch_length": 2, "horizon": horizon}
    expected = WindowSampler(tails, **options).spread(most)
    places = spread_places(lengths, counts, context_length=context, horizon=horizon, most=most)
    parts = [series[place.series][place.start : place.stop] for place in places]
    found = WindowSampler(parts, **options).spread(most)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    many = spread_places([10**9], [9 * 10**8], context_length=8, horizon=2, most=1024)
    assert len(many) == 1024
    assert many[-1] == Place(0, 10**9 - 10, 10**9)
    assert spread_places([9], [9], context_length=8, horizon=2, most=5) == []
