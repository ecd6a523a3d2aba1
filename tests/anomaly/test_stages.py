"""Each stage of the chain alone."""

import math

import numpy as np
import pytest

from xlstm_ts.anomaly import calibrate_scores
from xlstm_ts.anomaly.aggregate import Aggregate
from xlstm_ts.anomaly.budgets import find_alpha
from xlstm_ts.anomaly.calibration import Calibrator
from xlstm_ts.anomaly.comparison import Comparison
from xlstm_ts.anomaly.events import EventMachine, Evidence
from xlstm_ts.anomaly.evidence import ForecastErrors, Views
from xlstm_ts.anomaly.feedback import RateFeedback
from xlstm_ts.anomaly.guard import CLIP, InputGuard
from xlstm_ts.anomaly.head import OnlineHead
from xlstm_ts.anomaly.relation import Relation
from xlstm_ts.anomaly.slow import SlowChannel
from xlstm_ts.anomaly.stuck import StuckRule
from xlstm_ts.anomaly.tail import Tail

ONE = np.ones(1)


def test_guard_cuts_a_glitch_and_lets_a_level_pass() -> None:
    guard = InputGuard(1)

    def step(reading: float) -> float:
        return guard.step(reading * ONE, ONE, 2 * ONE).item()

    most = 1 + 2 * CLIP
    assert [step(reading) for reading in (-100, 3)] == [1 - 2 * CLIP, 3]
    assert [step(100) for _ in range(4)] == [most, most, 100, 100]
    assert math.isnan(step(math.nan))
    assert step(100) == 100


def test_head_learns_an_autoregression_and_stays_bounded() -> None:
    rng = np.random.default_rng(0)
    head, last, before = OnlineHead(1, n_lags=2, forgetting=0.999), 0.0, 0.0
    for _ in range(3000):
        last, before = 0.5 * last + 0.3 * before + 0.1 * rng.standard_normal(), last
        head.update(last * ONE, head.forecast(), 0.1 * ONE)
    assert head.weights[0] == pytest.approx([0, 0.5, 0.3], abs=0.1)
    for _ in range(50_000):  # a constant tells nothing of most weights
        head.update(last * ONE, head.forecast(), 0.1 * ONE)
    assert np.isfinite(head.doubt).all()
    assert np.abs(head.doubt).max() < 1000


def test_forecasts_of_forecasts_do_not_run_away() -> None:
    head = OnlineHead(1, n_lags=2, forgetting=0.999)
    head.lags[:] = 1.0
    head.weights[:] = [0.1, 1.5, 0.2]
    for _ in range(5000):
        head.update(np.full(1, np.nan), head.forecast(), ONE)
    assert 1 < head.forecast().item() < 10_000


def test_the_relation_is_that_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0.5, 1]])
    values = 3 + rng.standard_normal((6000, 3)) @ mixing.T
    relation = Relation(3)
    left = np.array([relation.step(value) for value in values])[-2000:]
    covariance = mixing @ mixing.T
    for j in range(3):
        others = [k for k in range(3) if k != j]
        inner, across = covariance[np.ix_(others, others)], covariance[j, others]
        right = values[-2000:] - 3
        right = right[:, j] - right[:, others] @ np.linalg.solve(inner, across)
        assert np.corrcoef(left[:, j], right)[0, 1] > 0.99
        assert left[:, j].std() == pytest.approx(right.std(), rel=0.1)


def test_channels_that_go_together_exactly_have_a_relation() -> None:
    rng, relation = np.random.default_rng(0), Relation(3)
    left = []
    for shared in rng.standard_normal(2000):
        left.append(relation.step(np.array([shared, 2 * shared, 0.0])))
    parted = relation.step(np.array([1.0, 0.0, 0.0]))
    assert np.isfinite(left).all()
    assert np.abs(parted[:2]).min() > 20 * np.abs(left[-100:]).max()
    assert parted[2] == pytest.approx(0, abs=1e-6)


def test_a_gap_of_a_channel_does_not_undo_its_relation() -> None:
    rng, relation = np.random.default_rng(0), Relation(3)
    values = rng.standard_normal((12_000, 1)) + 0.2 * rng.standard_normal((12_000, 3))
    values[6000:10_000, 1] = np.nan
    left = np.array([relation.step(value) for value in values])
    assert np.isnan(left[6000:10_000, 1]).all()
    known = relation.covariance[np.ix_([0, 2], [0, 2])]
    assert relation.covariance[1, [0, 2]] == pytest.approx(known.sum(0) / 2, rel=0.1)
    assert np.std(left[10_000:10_200, 1]) < 1.2 * np.std(left[5000:6000, 1])
    before = relation.state_dict()
    assert np.isnan(relation.step(np.full(3, np.nan))).all()
    assert all(np.array_equal(before[name], relation.state_dict()[name]) for name in before)


def test_an_error_counts_by_both_forecasts_and_is_never_forgiven() -> None:
    errors = ForecastErrors(1, half_life=1e9)
    errors.fit(np.tile([-1.0, 0.0, 1.0], (5, 1, 1)))

    def joint(error: float, *quantiles: float) -> float:
        return abs(errors.step(error * ONE, np.array([quantiles])).item())

    assert joint(3, -1, 0, 1) == pytest.approx(3, rel=1e-6)
    assert joint(3, -10, 0, 10) == pytest.approx(3, rel=1e-6)  # no surer than usual
    assert joint(3, -0.5, 0, 0.5) == pytest.approx(math.sqrt(4 * 7) - 1, rel=1e-6)
    assert joint(3, 2, 3, 4) == pytest.approx(math.sqrt(4 * 1) - 1, rel=1e-6)
    assert joint(3, 4, 5, 6) == pytest.approx(math.sqrt(4 * 3) - 1, rel=1e-6)
    assert errors.step(3 * ONE, None).item() == 3
    assert joint(3, math.nan, math.nan, math.nan) == pytest.approx(3, rel=1e-6)
    assert math.isnan(joint(math.nan, -1, 0, 1))


def test_the_rarest_errors_do_not_tie() -> None:
    aggregate, silent = Aggregate(1, span=10), np.full(1, np.nan)
    points = [
        aggregate.step(np.array(Views(error * ONE, silent, silent, silent)))[0]
        for error in (30, 90, 900)
    ]
    assert (np.diff(points) > 1).all()


def test_the_rarest_view_speaks_and_silent_ones_do_not() -> None:
    rng, comparison = np.random.default_rng(0), Comparison()
    raw = rng.exponential(size=(5000, 5)) * [1, 10, 0.1, 1, 1]
    raw[:, 4] = np.nan
    comparison.fit(raw)
    found = comparison.surprises([0.5, 5, 0.9, 0.5, math.nan])
    assert found.index(max(found)) == 2
    assert found[:2] == pytest.approx([0.5 / math.log(10)] * 2, rel=0.2)
    assert found[4] == 0


def test_tail_tells_exponential_probabilities() -> None:
    rng = np.random.default_rng(0)
    tail = Tail()
    tail.fit(rng.exponential(size=8000))
    # p = exp(-score): in the bulk and far beyond what was seen.
    for score in (0.7, 2.0, 4.0, 7.0, 14.0):
        assert tail.surprise(score) == pytest.approx(score / math.log(10), rel=0.2)
    scores = np.linspace(-1, 30, 500)
    assert (np.diff([tail.surprise(score) for score in scores.tolist()]) >= 0).all()


def test_anomalies_in_training_do_not_make_the_tail() -> None:
    scores = np.random.default_rng(0).exponential(size=8000)
    scores[4000:4020] = 500
    tail = Tail()
    tail.fit(scores)
    assert tail.surprise(20.0) > 4


def test_what_is_large_each_fiftieth_time_is_no_anomaly_of_training() -> None:
    rng, tail = np.random.default_rng(0), Tail()
    scores = np.where(rng.random(3000) < 0.02, 50.0, 1e-5 * rng.exponential(size=3000))
    tail.fit(scores)
    assert tail.surprise(50.0) < 3


def test_a_fault_does_not_make_the_next_look_usual() -> None:
    rng, tail = np.random.default_rng(0), Tail()
    tail.fit(rng.exponential(size=4000))
    before = tail.surprise(9.0)
    for _ in range(5):
        for score in (*rng.uniform(7, 9, 24), *rng.exponential(size=300)):
            tail.update(score, tail.surprise(score))
    assert tail.surprise(9.0) > before - 1  # with every reading of them 1.2 are lost


def test_a_level_is_held_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    readings = rng.standard_normal((1000, 2))
    readings[:, 1] = 0.1 * readings[:, 1].cumsum()
    readings[100:150, 0] = np.nan
    slow = SlowChannel(2, span=20)
    slow.fit([readings])
    off = np.stack([slow.step(np.full(2, 6.0)) for _ in range(40)])
    assert off[-1, 0] > 1
    assert off[-1, 1] < 1e-6


def test_a_new_level_is_that_of_seasons_and_of_channels_that_left() -> None:
    rng = np.random.default_rng(0)
    season = 1.4 * np.sin(np.arange(3600) * 2 * np.pi / 288)[:, None]
    readings = season + 0.1 * rng.standard_normal((3600, 2))
    readings[2000:, 0] += 5
    slow = SlowChannel(2, span=20)
    slow.fit([readings[:2000]])
    slow.reset()
    before = slow.reference.copy()
    for reading in readings[2000:3100]:  # to where the season is at its highest
        slow.step(reading)
    slow.rebase()
    assert slow.reference[0] == pytest.approx(5, abs=0.5)
    assert slow.reference[1] == before[1]
    assert max(slow.step(reading).max() for reading in readings[3100:]) < 0.75


def test_feedback_keeps_rates_and_does_not_yield_to_one_event() -> None:
    rng, feedback = np.random.default_rng(0), RateFeedback()
    # Surprises that come four times as often as they say.
    scores = -np.log10(rng.random(40_000)) + math.log10(4)
    crossed = np.zeros(3)
    for j, score in enumerate(scores.tolist()):
        corrected = feedback.correct(score)
        feedback.update(corrected)
        if j >= 10_000:
            crossed += corrected >= np.array([1, 2, 3])
    assert crossed / 30_000 / [1e-1, 1e-2, 1e-3] == pytest.approx([1, 1, 1], abs=0.3)
    before = np.array(feedback.shifts)
    for _ in range(5000):
        feedback.update(feedback.correct(9.0))
    assert (np.array(feedback.shifts) <= before + 0.6).all()


def test_stuck_after_its_run_and_never_by_design() -> None:
    rng = np.random.default_rng(0)
    readings = rng.standard_normal((500, 3))
    readings[:, 1] = 5.0  # constant by design
    readings[:, 2] = np.repeat(readings[:100, 2], 5)  # reported every fifth time
    rule = StuckRule(3)
    rule.fit([readings])
    rule.reset()
    stuck = [rule.step(np.ones(3)).tolist() for _ in range(20)]
    assert [row.index(True) if any(row) else None for row in stuck][:10] == [None] * 7 + [0] * 3
    assert stuck[16] == [True, False, True]
    assert not any(row[1] for row in stuck)
    assert not stuck[14][2]


def test_a_counter_is_not_stuck_soon_after_its_longest_pause() -> None:
    readings = (np.random.default_rng(0).random((3000, 1)) < 0.02).astype(float)
    rule = StuckRule(1)
    rule.fit([readings])
    pause = int(rule.longest.item() - 1) // 3
    rule.reset()
    rule.step(ONE)
    stuck = [rule.step(0 * ONE).item() for _ in range(4 * pause)]
    assert stuck.index(True) == 3 * pause
    rule.reset()
    faint = [rule.step(1e-6 * k * ONE).item() for k in range(200)]
    assert any(faint)  # it changes, though by far less than it did


def evidence(score: float = 0.0, slow: float = 0.0) -> Evidence:
    z, still = np.array([score, 0.1]), np.array([False, False])
    return Evidence(score, slow, False, z, np.array([0.0, slow]), still)


def run(machine: EventMachine, scores: list[float], slow: float = 0.0) -> list[bool]:
    steps = [machine.step(evidence(score, slow), threshold=3) for score in scores]
    return [event is not None and event.is_open for event, _ in steps]


def test_one_cause_is_one_event() -> None:
    machine = EventMachine(2, quiet=3, cooldown=5, n_rebase=4, policy="auto")
    assert run(machine, [0, 5, 0, 2.5, 0, 0, 0]) == [False, *[True] * 5, False]
    # In the cool-down the same event opens again; after it another begins.
    assert run(machine, [0, 4, 0, 0, 0]) == [False, True, True, True, False]
    assert machine.event[:6] == (0, 1, 8, 5.0, 1, "spike")
    assert machine.event.shares[0] > 0.9
    run(machine, [0] * 5 + [4])
    assert machine.event.number == 1


def test_another_channel_in_the_cooldown_is_another_event_once() -> None:
    machine = EventMachine(3, quiet=3, cooldown=30, n_rebase=100, policy="auto")
    nothing = np.zeros(3)

    def alarm(*z: float) -> int:
        found = Evidence(4, 0.0, False, np.array(z), nothing, nothing > 0)
        machine.step(found, threshold=3)
        run(machine, [0] * 4)
        return machine.event.number

    assert [alarm(9, 3, np.nan), alarm(0, 9, 0), alarm(9, 0, 0)] == [0, 0, 0]
    assert [alarm(0, 0, -9), alarm(9, 0, 0), alarm(0, 0, 9), alarm(0, 9, 0)] == [1, 1, 1, 1]
    assert machine.event.shares[2] > 0.4  # of its own alarms alone
    run(machine, [0] * 40)
    assert [alarm(0, 0, 9), alarm(9, 0, 0)] == [2, 3]  # after the cool-down all begins anew


@pytest.mark.parametrize("alarms", [1, 20])
def test_what_is_usual_in_many_channels_is_no_part_in_an_event(alarms: int) -> None:
    rng, nothing = np.random.default_rng(0), np.zeros(20)
    for _ in range(20):
        machine = EventMachine(20, quiet=3, cooldown=30, n_rebase=100, policy="auto")
        for channel in [3] * alarms + [11]:
            z = rng.standard_normal(20)
            z[channel] = 20
            machine.step(Evidence(4, 0.0, False, z, nothing, nothing > 0), threshold=3)
            if channel == 11 or machine.alarms == alarms:
                run(machine, [0] * 4)
        assert machine.event.number == 1


def test_a_channel_has_a_part_by_any_cause() -> None:
    """Errors of one channel, then another that is stuck: neither is another cause after that."""
    machine = EventMachine(3, quiet=3, cooldown=30, n_rebase=100, policy="auto")

    def alarm(error: float, *stuck: bool) -> int:
        is_still, z = np.array(stuck), np.array([error, 0, 0])
        found = Evidence(min(error, 4), 0.0, is_still.any(), z, np.zeros(3), is_still)
        machine.step(found, threshold=3)
        return machine.event.number

    assert [alarm(9, False, False, False) for _ in range(9)] == [0] * 9
    assert alarm(9, False, True, False) == 0
    run(machine, [0] * 4)
    assert [alarm(9, False, False, False), alarm(0, False, True, False)] == [0, 0]
    run(machine, [0] * 4)
    assert alarm(9, False, True, True) == 1  # the third is stuck as well


def test_only_an_open_event_is_acknowledged() -> None:
    machine = EventMachine(2, quiet=3, cooldown=5, n_rebase=4, policy="hold")
    assert not machine.acknowledge()
    assert machine.is_idle
    run(machine, [4.0])
    assert machine.acknowledge()
    run(machine, [0.0] * 10)
    assert machine.is_idle
    assert not machine.acknowledge()
    assert run(machine, [4.0]) == [True]
    assert machine.event.number == 1


def test_an_event_of_a_lax_budget_ends() -> None:
    machine = EventMachine(2, quiet=20, cooldown=5, n_rebase=1000, policy="auto")
    scores = [3.0, *[1.4] * 20]
    steps = [machine.step(evidence(score), threshold=2.3) for score in scores]
    assert machine.event.is_open is False
    assert steps[-2][0] is not None


def test_a_level_near_its_limit_keeps_the_event_open() -> None:
    machine = EventMachine(2, quiet=3, cooldown=5, n_rebase=100, policy="auto")
    run(machine, [0.0], slow=1.2)
    assert all(run(machine, [0.0] * 10, slow=0.8))
    assert run(machine, [0.0] * 3, slow=0.4) == [True, True, False]


def test_a_level_shift_ends_by_itself_or_is_held() -> None:
    machines = {
        policy: EventMachine(2, quiet=3, cooldown=5, n_rebase=4, policy=policy)
        for policy in ("auto", "hold")
    }
    for machine in machines.values():
        run(machine, [5.0])
    assert run(machines["auto"], [0] * 4, slow=2.0) == [True, True, True, False]
    assert all(run(machines["hold"], [0] * 40, slow=2.0))
    assert all(run(machines["hold"], [0] * 40))
    for machine in machines.values():
        assert machine.event.kind == "level_shift"
        assert machine.event.shares.tolist() == [0, 1]
    assert machines["hold"].acknowledge()
    assert not any(run(machines["hold"], [0] * 10))


def test_missing_scores_change_nothing() -> None:
    calibrator = Calibrator()
    calibrator.fit(np.random.default_rng(0).exponential(size=500))
    before = calibrator.state_dict()
    assert math.isnan(calibrator.step(math.nan))
    after = calibrator.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_any_score_can_be_calibrated() -> None:
    scores = np.random.default_rng(0).exponential(size=6000)
    scores[4000:4003] = 40
    scores[5000] = np.nan
    found = calibrate_scores(scores, n_train=2000, alpha=1e-4)
    assert [event.start for event in found.events] == [4000]
    assert found.events[0].kind == "spike"
    assert found.scores[5000] == 0
    assert not found.alarms[:2000].any()


def test_budgets() -> None:
    assert find_alpha(alarms_per_day=2, seconds=864) == pytest.approx(0.02)
    assert find_alpha(alpha=1e-3) == find_alpha(contamination=1e-3) == 1e-3
    assert find_alpha(contamination="auto") == 1e-4
    assert find_alpha(contamination="auto", seconds=60) == pytest.approx(1 / 1440)
    assert find_alpha(contamination="auto", seconds=3600) == 1e-2
    with pytest.raises(ValueError, match=r"one budget, .* got `alarms_per_day`, `alpha`"):
        find_alpha(alarms_per_day=1, alpha=0.1)
    with pytest.raises(ValueError, match="needs readings with times"):
        find_alpha(alarms_per_day=1)
    with pytest.raises(ValueError, match="at most 50, got 90"):
        find_alpha(alarms_per_day=90, seconds=864)
    with pytest.raises(ValueError, match="`alpha` must be a number, got 'auto'"):
        find_alpha(alpha="auto")  # that is for `contamination`
    with pytest.raises(ValueError, match="must be 'auto' or a share of readings, got 'best'"):
        find_alpha(contamination="best")
    for bad in ({"alpha": 0}, {"contamination": 0.6}):
        with pytest.raises(ValueError, match="must be a share"):
            find_alpha(**bad)
