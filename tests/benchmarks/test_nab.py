import numpy as np
import pandas as pd
import pytest

from benchmarks._nab import (
    Judged,
    best_score,
    locate_windows,
    probation,
    score_at,
    score_by_threshold,
)

WINDOWS = np.array([[1000, 1099], [2000, 2099]])


def detections(*positions, length=3000, windows=WINDOWS):
    score = np.zeros(length)
    score[list(positions)] = 1.0
    return Judged(score, windows)


def raw(*positions, **kwargs):
    """Points over the detector that stays silent."""
    file = detections(*positions, **kwargs)
    return score_at([file], threshold=1.0) / 100 * 2 * len(file.windows)


def test_silence_is_0_and_each_first_reading_100():
    assert best_score([detections()]) == 0
    assert score_at([detections()], threshold=2.0) == 0
    assert best_score([detections(1000, 2000), detections(1000, 2000)]) == pytest.approx(100)


def test_published_score_of_a_file():
    # Windowed Gaussian, exchange-3_cpm_results: one detection of one window, score 0.862.
    points = raw(776, length=1538, windows=np.array([[700, 852]])) - 1
    assert points == pytest.approx(0.862098587352162, abs=1e-12)


def test_published_costs_of_false_alarms():
    # The same, rogue_agent_key_hold (4 far from any window: -2.44 of 2 windows).
    assert raw(500, 600, 1700, 2900) == pytest.approx(-0.44)


def test_false_alarm_behind_a_window_costs_less():
    costs = [raw(position) for position in (1100, 1150, 1200, 1396, 1397, 1999)]
    assert costs == sorted(costs, reverse=True)
    assert -0.01 < costs[0] < 0
    assert costs[-2:] == [-0.11, -0.11]


def test_only_the_best_detection_of_a_window_counts():
    assert raw(1010, 1020, 1090) == raw(1010)
    assert raw(1010) > raw(1020) > raw(1090) > 1


def test_one_threshold_for_all_files():
    calm, loud = detections(1000, 2000), detections(500, 600, 1000, 2000)
    loud.score[:] *= 0.5
    table = score_by_threshold([calm, loud])
    assert list(table.index) == [1.0, 0.5, 0.0]
    assert best_score([calm, loud]) == pytest.approx(100 * (8 - 0.22) / 8)
    assert score_at([calm, loud], threshold=0.7) == pytest.approx(50)


def test_probation_is_not_judged():
    assert (probation(1000), probation(20_000)) == (150, 750)
    assert raw(0, 449) == 0
    assert raw(450) < 0


def test_windows_are_found_where_a_clock_is_put_back():
    times = pd.to_datetime(["2020-01-01 00:00", "2020-01-01 01:00"] * 2 + ["2020-01-01 02:00"])
    windows = pd.DataFrame({"start": times[[1]], "end": times[[4]]})
    assert locate_windows(pd.Series(range(5), index=times), windows).tolist() == [[1, 4]]
