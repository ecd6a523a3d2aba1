"""The promises of the chain: rates, causality, and what happens in real life."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from xlstm_ts.anomaly import AnomalyHost, HostConfig, Trace
from xlstm_ts.exceptions import SeriesError, StreamError

Floats = NDArray[np.float64]
SPREAD = 1 / 0.6  # of an autoregression with a memory of 0.8


def autoregression(noise: Floats, memory: float = 0.8) -> Floats:
    readings = np.zeros_like(noise)
    for before, now, shock in zip(readings, readings[1:], noise[1:], strict=False):
        now[:] = memory * before + shock
    return readings


def clean(length: int = 5000, *, channels: int = 3, seed: int = 0) -> Floats:
    noise = np.random.default_rng(seed).standard_normal((length, channels))
    return 50 + autoregression(noise)


@pytest.fixture(scope="module")
def fitted() -> AnomalyHost:
    return AnomalyHost(HostConfig(), alpha=1e-5).fit(clean())


def judge(host: AnomalyHost, readings: Floats, **options: object) -> Trace:
    host = host.fresh()
    host.config = HostConfig(**options)
    host._begin()
    return host.run(readings)


def generated_streams() -> list[Floats]:
    rng, streams = np.random.default_rng(1), []
    for _ in range(2):
        noise = rng.standard_normal((8000, 1))
        season = 3 * np.sin(np.arange(8000) * 2 * np.pi / 48)[:, None]
        volatility = np.exp(autoregression(0.1 * rng.standard_normal((8000, 1)), 0.98))
        streams += [
            autoregression(noise, 0.95),
            season + autoregression(rng.standard_normal((8000, 1)), 0.6),
            autoregression(rng.standard_t(3, (8000, 1)), 0.7),
            autoregression(volatility * rng.standard_normal((8000, 1)), 0.7),
        ]
    return streams


def real_streams(data_home: Path) -> list[Floats]:
    table = pd.read_csv(data_home / "skab/anomaly-free/anomaly-free.csv", sep=";")
    servers = [np.load(data_home / f"asd/omi-{number}.npz")["train"] for number in range(1, 7)]
    return [table.iloc[:, 1:9].to_numpy(float), *(server.astype(float) for server in servers)]


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_false_alarms_keep_their_rate(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "generated":
        streams = generated_streams()
    else:
        streams = real_streams(request.getfixturevalue("data_home"))
    scores, events = [], 0
    for readings in streams:
        start = len(readings) // 4
        trace = AnomalyHost(HostConfig(), alpha=1e-3).fit(readings[:start]).run(readings[start:])
        scores.append(trace.scores[100:])
        events += len(trace.events)
    joined = np.concatenate(scores)
    rates = [(joined >= decades).mean() * 10**decades for decades in (2, 3, 4)]
    assert 0.5 <= rates[0] <= 1.5
    assert 0.5 <= rates[1] <= 2
    assert rates[2] <= 4
    assert 0.4 <= np.median([(one >= 3).mean() for one in scores]) * 1e3 <= 2
    assert events <= 1.5 * 1e-3 * len(joined)


def test_nothing_looks_ahead(fitted: AnomalyHost) -> None:
    readings = clean(1200, seed=1)
    readings[np.random.default_rng(0).random(readings.shape) < 0.05] = np.nan
    whole = fitted.fresh().run(readings)
    for cut in (1, 101, 500, 937):
        changed = readings.copy()
        changed[cut:] = 1000
        part = fitted.fresh().run(changed)
        for name in ("scores", "point_scores", "range_scores", "slow_scores", "z", "expected"):
            before, after = getattr(whole, name)[:cut], getattr(part, name)[:cut]
            assert np.array_equal(before, after, equal_nan=True), name


def test_a_batch_is_its_steps_and_goes_on_after_a_restart(fitted: AnomalyHost) -> None:
    readings = clean(900, seed=2)
    readings[400] += 30
    readings[500:560] = np.nan
    whole = fitted.fresh().run(readings)
    host, verdicts = fitted.fresh(), []
    for count, reading in enumerate(readings):
        if count in (50, 401, 530):  # in the warm-up, in an event, in a gap
            state, host = host.state_dict(), fitted.fresh()
            host.load_state_dict(state)
        verdicts.append(host.step(reading))
    assert [verdict.score for verdict in verdicts] == whole.scores.tolist()
    assert [verdict.status for verdict in verdicts] == whole.statuses
    assert verdicts[-1].event is None
    with pytest.raises(StreamError, match="of another detector: it differs in"):
        host.load_state_dict(AnomalyHost(HostConfig()).fit(clean(300, channels=2)).state_dict())


def test_the_state_does_not_grow(fitted: AnomalyHost) -> None:
    host = fitted.fresh()
    host.run(clean(200))
    before = sum(array.nbytes for array in host.state_dict().values())
    host.run(clean(2000))
    assert sum(array.nbytes for array in host.state_dict().values()) == before


def test_one_glitch_is_one_event(fitted: AnomalyHost) -> None:
    readings = clean(2000, seed=3)
    usual = fitted.fresh().run(readings)
    readings[1000, 1] += 100 * SPREAD
    trace = fitted.fresh().run(readings)
    (event,) = trace.events
    assert (event.start, event.kind, int(event.shares.argmax())) == (1000, "spike", 1)
    assert event.shares[1] > 0.5
    assert trace.contributions[1000].argmax() == 1
    assert not trace.alarms[1020:].any()
    later = slice(1020, 1220)
    assert np.abs(trace.scores[later] - usual.scores[later]).max() < 0.5


def test_a_level_shift_is_one_event_and_then_normal(fitted: AnomalyHost) -> None:
    readings = clean(5000, seed=4)
    readings[1000:, 2] += 6 * SPREAD
    trace = judge(fitted, readings, policy="auto")
    (event,) = trace.events
    assert (event.kind, event.is_open, int(event.shares.argmax())) == ("level_shift", False, 2)
    assert 1000 <= event.start < 1010
    assert event.end < 2100
    assert trace.alarms[1000 + 5 * 500 :].mean() <= 0.01


def seasonal(length: int) -> Floats:
    season = np.sin(np.arange(length) * 2 * np.pi / 288)
    noise = np.random.default_rng(1).standard_normal((length, 2))
    return np.array([60, 2]) + np.array([5, 1]) * season[:, None] + noise * [0.5, 0.1]


@pytest.mark.parametrize(("shift", "end"), [(10, None), (10, 1900), (5, None)])
def test_a_level_shift_does_not_hide_what_comes_after_it(shift: float, end: int | None) -> None:
    """What a level brings is no part of what is usual: nor are its seasons, in and out of range."""
    readings = seasonal(5200)
    host = AnomalyHost(HostConfig(), alpha=1e-3).fit(readings[:2000])
    later = readings[2000:]
    later[900:end, 0] += shift
    later[3000, 1] = 12
    trace = host.fresh().run(later)
    assert trace.scores[3000] > 5
    assert trace.contributions[3000, 1] > 0.9


def test_a_sensor_that_is_stuck_within_a_level_shift_does_not_hold_it_open() -> None:
    readings = seasonal(5200)
    host = AnomalyHost(HostConfig(), alpha=1e-3).fit(readings[:2000])
    later = readings[2000:]
    later[900:, 0] += 10
    later[1500:1600, 1] = 3.0
    trace = host.fresh().run(later)
    shifted = next(one for one in trace.events if one.end >= 900)
    assert (shifted.start, shifted.kind, shifted.is_open) == (900, "level_shift", False)
    assert shifted.shares[0] > 0.9
    assert shifted.end <= 900 + HostConfig().n_rebase
    assert trace.alarms[2200:].mean() < 0.005


@pytest.mark.parametrize("far", [-12, -40])
def test_a_dead_sensor_is_stuck_and_its_value_never_normal(fitted: AnomalyHost, far: float) -> None:
    readings = clean(3500, seed=4)
    readings[500:2000, 0] += far - readings[500:2000, 0] + 50
    host = fitted.fresh()
    trace = host.run(readings)
    dead = next(one for one in trace.events if one.end >= 500)
    assert (dead.start, dead.kind, dead.is_open) == (500, "stuck", False)
    assert dead.shares[0] > 0.9
    np.testing.assert_array_equal(host.scorer.slow.reference, fitted.scorer.slow.reference)
    assert not trace.alarms[2500:].any()


@pytest.mark.parametrize("end", [1497, 1560, 3000])
def test_no_alarm_without_an_event_where_levels_change_again(fitted: AnomalyHost, end: int) -> None:
    """A level that is left as it becomes normal, or soon after: another shift, and no chatter."""
    readings = clean(4000, seed=5)
    readings[500:end, 0] += 12
    host, alarms = fitted.fresh(), 0
    for reading in readings:
        verdict = host.step(reading)
        assert verdict.event is not None or not verdict.alarm
        alarms += verdict.alarm
    assert host.decider.machine.number <= 4
    assert alarms < 2500


def test_a_level_short_of_its_limit_becomes_usual() -> None:
    """No event makes it normal, so the tails learn it again, and alarms keep their rate."""
    readings = clean(9000, channels=2, seed=6)
    host = AnomalyHost(HostConfig(), alpha=1e-3).fit(readings[:3000])
    later = readings[3000:]
    later[500:, 0] += 3.5
    trace = host.fresh().run(later)
    assert 0.4 < np.median(trace.slow_scores[3000:]) < 1
    assert (trace.scores[3000:] >= 3).mean() < 4e-3


def test_a_held_level_shift_waits_for_acknowledgement(fitted: AnomalyHost) -> None:
    readings = clean(2500, seed=4)
    readings[1000:, 2] += 6 * SPREAD
    host = fitted.fresh()
    host.config = HostConfig(policy="hold")
    host._begin()
    first = host.run(readings[:2000])
    assert [(event.kind, event.is_open) for event in first.events] == [("level_shift", True)]
    host.acknowledge()
    rest = host.run(readings[2000:])
    assert not rest.alarms[20:].any()


def test_sensors_that_part_are_found_though_each_looks_as_always() -> None:
    rng = np.random.default_rng(3)
    thing, other = (autoregression(rng.standard_normal((6000, 1)), 0.97) for _ in range(2))
    share = np.interp(np.arange(6000), [4400, 4420, 4500, 4520], [0, 1, 1, 0])[:, None]
    readings = np.hstack([thing, (1 - share) * thing + share * other])
    readings += 0.1 * thing.std() * rng.standard_normal(readings.shape)
    host = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:3000])
    trace = host.fresh().run(readings[3000:])
    starts = [event.start for event in trace.events]
    assert any(1400 <= start < 1520 for start in starts)
    during = slice(1420, 1500)
    assert np.median(trace.relation_scores[during]) > 4
    assert np.median(trace.point_scores[during]) < 2
    assert np.median(trace.level_scores[during]) < 2


def test_a_level_of_before_is_news_for_training_alone(fitted: AnomalyHost) -> None:
    readings = clean(900, seed=5)
    readings[500:, 0] += 5 * SPREAD
    trace = fitted.fresh().run(readings)
    later = slice(700, 900)
    assert np.median(trace.level_scores[later]) > 2 * np.median(trace.recent_scores[later])
    assert trace.recent_scores[500] > 3


def test_a_slow_drift_is_seen(fitted: AnomalyHost) -> None:
    readings = clean(2500, seed=5)
    readings[1000:, 0] += np.minimum(np.arange(1500) / 400, 1) * 6 * SPREAD
    kinds = {event.kind for event in fitted.fresh().run(readings).events}
    assert kinds <= {"drift", "level_shift"}
    assert kinds


def test_a_stuck_sensor_is_named(fitted: AnomalyHost) -> None:
    readings = clean(1500, seed=6)
    readings[1000:1200, 2] = readings[1000, 2]
    trace = fitted.fresh().run(readings)
    (event,) = trace.events
    assert (event.kind, event.shares.tolist()) == ("stuck", [0, 0, 1])
    assert event.start <= 1000 + fitted.scorer.stuck.longest[2] + 2
    assert trace.statuses[1100] == "stuck"


def test_missing_readings_never_alarm(fitted: AnomalyHost) -> None:
    readings = clean(3000, seed=7)
    usual = fitted.fresh().run(readings)
    gaps = np.random.default_rng(0).random(readings.shape) < 0.05
    readings[gaps] = np.nan
    readings[1500:1800] = np.nan
    readings[1800:] += 3 * SPREAD  # what has moved meanwhile
    trace = fitted.fresh().run(readings)
    missing = np.isnan(readings).all(1)
    assert not trace.alarms[missing].any()
    assert {trace.statuses[row] for row in np.flatnonzero(missing)} == {"missing"}
    assert trace.statuses[1800] == "warm-up"
    assert np.isfinite(trace.scores).all()
    assert len([event for event in trace.events if event.start >= 1500]) <= 1
    assert (trace.scores[:1500] >= 2).sum() <= 2 * (usual.scores[:1500] >= 2).sum() + 5


def test_a_channel_that_is_read_each_fifth_time_is_scored_like_others() -> None:
    readings = clean(6000, channels=2, seed=10)
    readings[np.arange(len(readings)) % 5 > 0, 1] = np.nan
    host = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:3000])
    trace = host.fresh().run(readings[3000:])
    assert (trace.scores[100:] >= 2).mean() < 0.02
    assert np.median(trace.scale[:, 1]) < 2 * SPREAD
    assert np.abs(trace.expected - 50).max() < 8 * SPREAD


def test_how_often_rows_are_missing_does_not_move_the_p_values() -> None:
    readings = clean(12_000, channels=1, seed=11)
    readings[np.random.default_rng(0).random(len(readings)) < 0.8] = np.nan
    host = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:6000])
    assert host.decider.joint.tail.knots[1] > 0.3  # a median of -log10 p, and not of missing rows
    trace = host.fresh().run(readings[6000:])
    judged = trace.scores[np.isfinite(readings[6000:, 0])][100:]
    assert 0.07 < (judged >= 1).mean() < 0.14


def test_channels_that_stand_still_are_no_news_where_they_go_missing() -> None:
    readings = np.hstack([clean(4000, channels=2, seed=12), np.zeros((4000, 8))])
    readings[3000:, 2:] = np.nan
    trace = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:2000]).fresh().run(readings[2000:])
    assert (trace.scores[1000:] >= 2).mean() < 0.02
    assert not trace.events


def test_a_switch_does_not_drown_the_others() -> None:
    readings = clean(4000, channels=2, seed=14)
    readings[:, 1] = np.arange(4000) % 100 < 40
    trace = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:2000]).fresh().run(readings[2000:])
    jumps = np.abs(trace.z[200:, 1]) > 100
    assert jumps.any()
    assert (trace.scores[200:][jumps] < 4).all()
    readings[3051, 0] += 12 * SPREAD
    host = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings[:2000])
    trace = host.fresh().run(readings[2000:])
    assert trace.point_scores[1051] >= 4
    assert trace.contributions[1051].argmax() == 0


def test_a_fresh_stream_knows_nothing_of_the_end_of_training() -> None:
    readings = clean(1000, seed=13)
    host = AnomalyHost(HostConfig()).fit(readings)
    ended = AnomalyHost(HostConfig()).fit(np.concatenate([readings[:-3], readings[-3:] + 1000]))
    assert ended.whitening.guard.beyond.all()
    for one in (host, ended):
        fresh = one.fresh().whitening
        assert not fresh.guard.beyond.any()
        assert not fresh.head.lags.any()


def test_no_alarm_in_the_warm_up(fitted: AnomalyHost) -> None:
    trace = fitted.fresh().run(clean(150, seed=8) + 20 * (np.arange(150) < 90)[:, None])
    assert set(trace.statuses[:100]) == {"warm-up"}
    assert not trace.scores[:100].any()


def test_anomalies_in_training_do_not_blind() -> None:
    readings = clean()
    for start in (1000, 2000, 3000):
        readings[start : start + 3] += 50 * SPREAD
    host = AnomalyHost(HostConfig(), alpha=1e-4).fit(readings)
    stream = clean(1000, seed=9)
    stream[700] += 12
    assert [event.start for event in host.fresh().run(stream).events] == [700]


def test_attribution_on_servers(data_home: Path) -> None:
    first = 0
    for number in (1, 2):
        data = np.load(data_home / f"asd/omi-{number}.npz")
        trace = AnomalyHost(HostConfig()).fit(data["train"].astype(float)).fresh()
        z = np.log1p(np.abs(trace.run(data["test"].astype(float)).z))
        lines = (data_home / f"asd/omi-{number}_interpretation.txt").read_text().split()
        hits = []
        for line in lines:
            rows, channels = line.split(":")
            start, end = (int(part) for part in rows.split("-"))
            named = {int(channel) - 1 for channel in channels.split(",")}
            hits.append(int(np.nanmean(z[start : end + 1], 0).argmax()) in named)
        first += np.mean(hits) / 2
    # Two of the servers; over six `benchmarks/anomaly.py` asks for 0.86.
    assert first >= 0.8


def test_too_few_readings_and_bad_fields_are_refused() -> None:
    with pytest.raises(SeriesError, match=r"at least 110 readings .* has 100, 0 of them so"):
        AnomalyHost(HostConfig()).fit(clean(100))
    with pytest.raises(SeriesError, match=r"after the first 100 of .* has 500, 9 of them so"):
        AnomalyHost(HostConfig()).fit(np.where(np.arange(500)[:, None] < 109, clean(500), np.nan))
    with pytest.raises(ValueError, match="`policy` must be 'auto' or 'hold'"):
        HostConfig(policy="never")
    with pytest.raises(ValueError, match="`forgetting`"):
        HostConfig(forgetting=1.5)


def test_where_nothing_ever_happens_nothing_is_told() -> None:
    still = np.full((1200, 1), 5.0)
    host = AnomalyHost(HostConfig(), alpha=1e-2).fit(still[:600])
    trace = host.fresh().run(still[600:])
    assert not trace.alarms.any()
    assert not trace.events


@pytest.mark.parametrize("policy", ["auto", "hold"])
def test_a_pause_of_months_is_passed_over_as_if_it_were_stepped(policy: str) -> None:
    host = AnomalyHost(HostConfig(policy=policy, n_rebase=200), alpha=1e-4).fit(clean(2000))
    readings = clean(1200, seed=1)
    readings[600:] += 20  # an event is open when the pause begins
    stepped, passed = host.fresh(), host.fresh()
    nothing, longest = np.full(3, np.nan), host.longest_memory
    for each in (stepped, passed):
        for reading in readings[:610]:
            each.step(reading)
        for _ in range(longest):
            each.step(nothing)
    for _ in range(3000):
        stepped.step(nothing)
    passed.pass_over(3000)
    for reading in readings[610:]:
        one, other = stepped.step(reading), passed.step(reading)
        assert (one.score, one.status, one.alarm) == (other.score, other.status, other.alarm)
        assert (one.event is None) == (other.event is None)
        if one.event is not None and other.event is not None:
            assert one.event[:6] == other.event[:6]
