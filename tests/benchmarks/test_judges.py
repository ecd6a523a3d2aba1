import numpy as np
import pytest

from benchmarks._judges import Span, delays, judge_alarms, judge_channels, strays, vus_pr

LABEL = np.zeros(1000, dtype=bool)
LABEL[300:340] = LABEL[700:710] = True


def test_alarms():
    alarm = np.zeros(1000, dtype=bool)
    alarm[330:350] = True
    f1, false, missed = judge_alarms(alarm, LABEL)
    assert f1 == pytest.approx(2 * 10 / (20 + 50))
    assert (false, missed) == (10 / 950, 40 / 50)
    assert judge_alarms(LABEL, LABEL) == (1, 0, 0)
    assert judge_alarms(~LABEL, LABEL) == (0, 1, 1)


def test_one_hit_in_an_anomaly_is_not_the_whole():
    alarm = np.zeros(1000, dtype=bool)
    alarm[[320, 705]] = True
    assert judge_alarms(alarm, LABEL).f1 < 0.08  # 1 where points are adjusted


def test_channels():
    blame = np.array([0.1, 0.9, 0.5, 0.7])
    assert judge_channels(blame, (1, 2)) == (0.5, 1)
    assert judge_channels(blame, (0, 3)) == (0.5, 0)
    assert judge_channels(blame, (0, 1, 2, 3)) == (1, 1)


def test_delays_and_strays():
    spans = [Span(100, 110), Span(200, 201), Span(300, 310)]
    starts = np.array([50, 103, 105, 205, 400])
    np.testing.assert_array_equal(delays(starts, spans, grace=4), [3, np.nan, np.nan])
    np.testing.assert_array_equal(delays(starts, spans, grace=5), [3, 5, np.nan])
    assert strays(starts, spans, grace=4) == 3
    assert strays(starts, spans, grace=5) == 2


def test_vus_is_of_the_published_code():
    pytest.importorskip("TSB_AD", reason="pip install --no-deps TSB-AD==1.5")
    late = np.roll(LABEL, 5).astype(float)
    perfect = vus_pr(LABEL.astype(float), LABEL, window=50)
    noise = vus_pr(np.random.default_rng(0).random(1000), LABEL, window=50)
    assert noise < 0.2 < vus_pr(late, LABEL, window=50) < perfect <= 1
