"""The golden vectors for ports to other languages are what the chain gives."""

import gzip
import json
from pathlib import Path

import numpy as np

from xlstm_ts.anomaly import Verdict
from xlstm_ts.anomaly.records import read_record

GOLDEN = Path(__file__).parent / "golden.json.gz"


def test_golden_vectors() -> None:
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    readings, quantiles = (np.array(golden[name], float) for name in ("readings", "quantiles"))
    host, seconds = read_record(golden["host"])
    assert (len(readings), seconds) == (10_000, None)
    verdicts: list[Verdict] = [host.step(*row) for row in zip(readings, quantiles, strict=True)]
    for name in ("score", "range_score", "slow_score"):
        given = np.array([getattr(verdict, name) for verdict in verdicts])
        assert np.abs(given - golden[f"{name}s"]).max() < 1e-6, name
    contributions = np.array([verdict.contributions for verdict in verdicts])
    assert np.abs(contributions - golden["contributions"]).max() < 1e-6
    assert [verdict.status for verdict in verdicts] == golden["statuses"]
    events = {one.event.number: one.event for one in verdicts if one.event is not None}
    assert [
        [one.start, one.end, one.peak_at, one.kind, one.shares.round(6).tolist(), one.is_open]
        for one in events.values()
    ] == golden["events"]
    assert {event[3] for event in golden["events"]} >= {"spike", "stuck", "level_shift"}
