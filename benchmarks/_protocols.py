"""What each set of data asks of a detector, and how it is judged there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from _generated import CLEAN_DAYS, DAY, DAYS, Stream, machine, pair
from _judges import delays, judge_alarms, judge_channels, strays, vus_pr
from _methods import Method, cooled
from _nab import Judged, best_score, locate_windows, probation, score_at
from _rivals import Array

from xlstm_ts.anomaly.events import Event
from xlstm_ts.datasets.labelled import ASDServer, fetch_asd, fetch_skab
from xlstm_ts.datasets.loaders import fetch_nab
from xlstm_ts.datasets.registry import DATASETS

Figures = dict[str, float]

VUS, HIT_RATE, TOP_1 = "VUS-PR", "HitRate@100 %", "top-1"
STANDARD, AT_BUDGET = "standard score", "standard score at 1e-4"
F1, FALSE_ALARMS, MISSED = "F1", "false-alarm rate", "missed"
FOUND, STRAYS = "found", "events a day beside them"

VUS_WINDOW = 50  # readings
SKAB_TRAIN, SKAB_ALPHA = 400, 0.005
NAB_ALPHA = 1e-4
GRACE = 12  # readings after a fault in which an alarm still is its own


def judge_asd(method: Method, *, quick: bool) -> Figures:
    """Rank the readings of servers, and the channels of each event."""
    names = list(DATASETS["asd"])[: 2 if quick else None]
    volumes, named = [], []
    for server in map(fetch_asd, names):
        known, label = len(server.train), server.label.to_numpy()
        readings = np.concatenate([server.train, server.test])
        scored = method(readings, known=known, alpha=1 / DAY)
        volumes.append(_volume(scored.stretch[known:], label))
        if scored.blame is not None:
            named += _channels(scored.blame, server)
    figures = {VUS: float(np.mean(volumes))}
    if named:
        figures |= dict(zip((HIT_RATE, TOP_1), np.mean(named, 0).tolist(), strict=True))
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def judge_nab(method: Method, *, quick: bool) -> Figures:
    """Report early what has a known cause, with few false alarms."""
    files, names = [], list(DATASETS["nab"])
    for series, windows in map(fetch_nab, names[2::3] if quick else names):
        readings = series.to_numpy()[:, None]
        scored = method(readings, known=probation(len(series)), alpha=NAB_ALPHA)
        files.append(Judged(cooled(scored.point), locate_windows(series, windows)))
    return {
        STANDARD: best_score(files),
        AT_BUDGET: score_at(files, threshold=-np.log10(NAB_ALPHA)),
    }


def judge_skab(method: Method, *, quick: bool) -> Figures:
    """Tell at each second whether the valve is closed, after 400 seconds of normal operation."""
    alarms, labels = [], []
    names = [name for name in DATASETS["skab"] if name.startswith("valve1")]
    for run in map(fetch_skab, names[:: 4 if quick else 1]):
        scored = method(run.readings.to_numpy(), known=SKAB_TRAIN, alpha=SKAB_ALPHA)
        alarms.append(scored.alarms[SKAB_TRAIN:])
        labels.append(run.anomaly.to_numpy()[SKAB_TRAIN:])
    judged = judge_alarms(np.concatenate(alarms), np.concatenate(labels))
    return dict(zip((F1, FALSE_ALARMS, MISSED), judged, strict=True))


def judge_faults(method: Method, *, quick: bool) -> Figures:
    """Find faults at one alarm a day, and the channel of each."""
    after: dict[str, list[float]] = defaultdict(list)
    right, beside, days = [], 0, 0
    known = CLEAN_DAYS * DAY
    for stream in _streams(quick=quick):
        scored = method(stream.readings, known=known, alpha=1 / DAY)
        events = [event for event in scored.events if event.start >= known]
        starts = np.array([event.start for event in events], np.int64)
        found = delays(starts, stream.spans, grace=GRACE)
        for kind, delay in zip(stream.kinds, found, strict=True):
            after[kind].append(delay)
        if scored.blame is not None:
            right += _blamed(events, stream, found)
        beside += strays(starts, stream.spans, grace=GRACE)
        days += DAYS - CLEAN_DAYS
    figures = {f"{kind}, found": float(np.isfinite(each).mean()) for kind, each in after.items()}
    figures = {FOUND: float(np.mean(list(figures.values())))} | figures
    for kind, each in after.items():
        if np.isfinite(each).any():
            figures[f"{kind}, delay in readings"] = float(np.nanmedian(each))
    figures[STRAYS] = beside / days
    if right:
        figures[TOP_1] = float(np.mean(right))
    return figures


def _streams(*, quick: bool) -> Iterable[Stream]:
    yield from map(machine, range(2 if quick else 8))
    yield from map(pair, range(1 if quick else 4))


def _volume(score: Array, label: Array) -> float:
    try:
        return vus_pr(score, label, window=VUS_WINDOW)
    except ModuleNotFoundError:
        return np.nan


def _channels(blame: Array, server: ASDServer) -> Iterable[tuple[float, float]]:
    for event in server.events.itertuples():
        during = np.log1p(blame[event.start : event.end + 1]).mean(0)
        yield judge_channels(during, event.channels)


def _blamed(events: list[Event], stream: Stream, found: Array) -> Iterable[bool]:
    """Tell of each fault that was found whether its event names its channel first."""
    at = {event.start: event for event in events}
    for span, channel, delay in zip(stream.spans, stream.channels, found, strict=True):
        if np.isfinite(delay):
            yield bool(at[span.start + int(delay)].shares.argmax() == channel)
