"""Write the golden vectors of the chain: `python tests/anomaly/make_golden.py`.

For ports to other languages: `golden.json.gz` holds a fitted host (`xlstm_ts.anomaly.records`),
10,000 readings of two channels with gaps and faults, forecasts of their innovations as a model
would give them, and what comes out: scores, contributions, statuses and events.
"""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from xlstm_ts.anomaly import AnomalyHost, HostConfig, Verdict
from xlstm_ts.anomaly.records import write_record

PATH = Path(__file__).parent / "golden.json.gz"
ROWS, TRAINING = 10_000, 3000


def make_readings() -> np.ndarray:
    rng = np.random.default_rng(0)
    readings = rng.standard_normal((TRAINING + ROWS, 2))
    for before, now in pairwise(readings):
        now += 0.7 * before
    readings[:, 1] += 2 * np.sin(np.arange(len(readings)) * 2 * np.pi / 96)
    stream = readings[TRAINING:]
    stream[2000, 0] += 40
    stream[[2060, 2120], [1, 0]] += 40  # another cause, and the first once more
    stream[3000:3100, 1] = stream[3000, 1]
    stream[4000:4100] = np.nan
    stream[5000:, 0] += 8
    stream[7000:7300, 1] += np.linspace(0, 9, 300)
    stream[rng.random(stream.shape) < 0.01] = np.nan
    return readings.round(3) + np.array([20, -5])


def replay(
    host: AnomalyHost, readings: np.ndarray, quantiles: np.ndarray
) -> tuple[list[Verdict], list[list[object]]]:
    verdicts = [host.step(*row) for row in zip(readings, quantiles, strict=True)]
    events = {one.event.number: one.event for one in verdicts if one.event is not None}
    described: list[list[object]] = [
        [one.start, one.end, one.peak_at, one.kind, one.shares.round(6).tolist(), one.is_open]
        for one in events.values()
    ]
    return verdicts, described


def make_quantiles(host: AnomalyHost, readings: np.ndarray) -> np.ndarray:
    """Forecast innovations a little from the one before, and wider after a large one."""
    seen = np.array([host.whitening.step(reading).seen for reading in readings])
    before = np.nan_to_num(np.roll(seen, 1, 0))
    width = 1 + (np.abs(before) > 1.5)
    levels = (0.1 * before)[..., None] + width[..., None] * np.array([-1.25, 0, 1.25])
    levels[0] = np.nan
    return levels.round(2)


def main() -> None:
    readings = make_readings()
    host = AnomalyHost(HostConfig(), alpha=1e-4)
    innovations = host.start([readings[:TRAINING]])
    quantiles = make_quantiles(AnomalyHost(HostConfig()).fit(readings[:TRAINING]), readings)
    host.finish(innovations, [quantiles[:TRAINING]])
    given = readings[TRAINING:], quantiles[TRAINING:]
    verdicts, events = replay(host.fresh(), *given)
    content = {
        "host": write_record(host, seconds=None),
        "readings": [[None if value != value else value for value in row] for row in given[0]],
        "quantiles": given[1].tolist(),
        "scores": [round(one.score, 7) for one in verdicts],
        "range_scores": [round(one.range_score, 7) for one in verdicts],
        "slow_scores": [round(one.slow_score, 7) for one in verdicts],
        "contributions": [one.contributions.round(6).tolist() for one in verdicts],
        "statuses": [one.status for one in verdicts],
        "events": events,
    }
    PATH.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


if __name__ == "__main__":
    main()
