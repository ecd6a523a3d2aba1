"""Series that are judged together are judged as each is alone, to the bit."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from xlstm_ts.anomaly import AnomalyHost, HostConfig, Trace, together
from xlstm_ts.anomaly.together import judge_series

Floats = NDArray[np.float64]
LEVELS = np.array([-1.25, 0.0, 1.25])


def readings(length: int, *, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((length, 2))
    for before, now in pairwise(made):
        now += 0.7 * before
    made[rng.random(made.shape) < 0.02] = np.nan
    return made


def forecast(seen: Floats, values: Floats) -> Floats:
    """Forecast a little of the innovation before, and wider where the reading was far off."""
    seen, values = (np.nan_to_num(np.roll(part, 1, 0)) for part in (seen, values))
    told = 0.2 * seen[..., None] + (1 + (np.abs(values) > 1))[..., None] * LEVELS
    told[0] = np.nan
    return told


def alone(host: AnomalyHost, series: Floats, *, with_model: bool) -> Trace:
    fresh = host.fresh()
    innovations = [fresh.whitening.step(reading) for reading in series]
    if not with_model:
        return fresh.judge(innovations)
    seen = (
        np.array([getattr(one, name) for one in innovations]) for name in ("seen", "seen_value")
    )
    return fresh.judge(innovations, forecast(*seen))


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("most", [together.MOST_READINGS, 700])
def test_together_as_alone(monkeypatch: pytest.MonkeyPatch, most: int, with_model: bool) -> None:
    monkeypatch.setattr(together, "MOST_READINGS", most)  # 700: two or three series at a time
    host = AnomalyHost(HostConfig(n_rebase=100), alpha=1e-3)
    innovations = host.start([readings(800, seed=9)])
    quantiles = None
    if with_model:
        seen = np.array([one.seen for one in innovations[0]])
        quantiles = [forecast(seen, np.array([one.seen_value for one in innovations[0]]))]
    host.finish(innovations, quantiles)
    series = [
        readings(length, seed=seed) for seed, length in enumerate((300, 150, 320, 1, 150, 90))
    ]
    series[0][200] += 30
    series[2][150:] += 12  # a level, which is taken for normal
    traces = judge_series(host, series, forecast if with_model else None)
    assert sum(len(one.events) for one in traces) >= 2
    for got, one in zip(traces, series, strict=True):
        expected = alone(host, one, with_model=with_model)
        for name, part, whole in zip(Trace._fields, got, expected, strict=True):
            if name == "events":
                assert [event[:6] for event in part] == [event[:6] for event in whole]
            elif name == "statuses":
                assert part == whole
            else:
                np.testing.assert_array_equal(part, whole)


def test_no_series_no_trace() -> None:
    assert judge_series(AnomalyHost(HostConfig()).fit(readings(300, seed=0)), []) == []
