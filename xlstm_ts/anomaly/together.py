"""Many series judged at once, a reading of each at a time.

At the size of a reading numpy's calls cost and not its arithmetic, so that a series beside others
takes a fraction of the time of one alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from xlstm_ts.anomaly.decider import decide
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.stages import Floats
from xlstm_ts.anomaly.verdicts import Trace, Verdict, trace
from xlstm_ts.anomaly.whitening import Innovation

# At a time: what is said of a reading takes three kilobytes.
MOST_READINGS, MOST_SERIES = 50_000, 256
Forecast = Callable[[Floats, Floats], Floats]


def judge_series(
    host: AnomalyHost, series: Sequence[Floats], forecast: Forecast | None = None
) -> list[Trace]:
    """Judge series, each as a fresh stream would be.

    Parameters
    ----------
    host : AnomalyHost
        A fitted one; it stays as it is.
    series : sequence of ndarray of float64, shape (T, C)
        Raw readings of each, NaN where missing.
    forecast : callable, optional
        Takes the innovations and the readings of a series as a model may see them, `(T, C)` each,
        and returns what it forecasts of each innovation, `(T, C, Q)`.

    Returns
    -------
    list of Trace
        Of each series.
    """
    order = sorted(range(len(series)), key=lambda one: len(series[one]), reverse=True)
    traces: dict[int, Trace] = {}
    while order:
        count = min(MOST_SERIES, max(1, MOST_READINGS // len(series[order[0]])))
        part, order = order[:count], order[count:]
        judged = _judge_part(host.fresh(), [series[one] for one in part], forecast)
        traces |= dict(zip(part, judged, strict=True))
    return [traces[one] for one in range(len(series))]


def _judge_part(
    host: AnomalyHost, series: Sequence[Floats], forecast: Forecast | None
) -> list[Trace]:
    """Judge some series by a fresh host, the longest first."""
    lengths = np.array([len(one) for one in series])
    counts: list[int] = (lengths[:, None] > np.arange(lengths[0])).sum(0).tolist()
    innovations = _whiten(host, _laid(series), counts)
    quantiles = None
    if forecast is not None:
        seen = [[now.seen for now in innovations], [now.seen_value for now in innovations]]
        told = [
            forecast(*(_of_row(row, part[:length]) for part in seen))
            for row, length in enumerate(lengths.tolist())
        ]
        quantiles = _laid(told)
    verdicts, z = _decide(host, innovations, quantiles, counts)
    expected, scale = (
        [getattr(now, name) for now in innovations] for name in ("expected", "scale")
    )
    return [
        trace(
            [now[row] for now in verdicts[:length]],
            *(_of_row(row, part[:length]) for part in (z, expected, scale)),
        )
        for row, length in enumerate(lengths.tolist())
    ]


def _whiten(host: AnomalyHost, values: Floats, counts: Sequence[int]) -> list[Innovation]:
    """Return the innovations of readings `(series, T, C)`, the first of them by `counts`."""
    whitening, innovations = host.whitening.repeated(len(values)), []
    for now, count in enumerate(counts):
        if now and count < counts[now - 1]:
            whitening = whitening.take(np.arange(count))
        innovations.append(whitening.step(values[:count, now]))
    return innovations


def _decide(
    host: AnomalyHost,
    innovations: Sequence[Innovation],
    quantiles: Floats | None,
    counts: Sequence[int],
) -> tuple[list[list[Verdict]], list[Floats]]:
    """Return at each time the verdicts of the series that go on, and errors of their forecasts."""
    scorer = host.scorer.repeated(counts[0])
    deciders = [copy.deepcopy(host.decider) for _ in range(counts[0])]
    verdicts, z = [], []
    for now, count in enumerate(counts):
        if now and count < counts[now - 1]:
            scorer = scorer.take(np.arange(count))
        guess = None if quantiles is None else quantiles[:count, now]
        found = scorer.step(innovations[now], guess)
        told, rebased = decide(found, deciders[:count], alphas=[host.alpha] * count)
        if rebased:
            scorer.slow.rebase(rebased)
        verdicts.append(told)
        z.append(found.views.forecast)
    return verdicts, z


def _laid(series: Sequence[Floats]) -> Floats:
    """Return arrays `(T, ...)`, the longest first, as `(series, T, ...)`, with NaN behind them."""
    laid = np.full((len(series), *series[0].shape), np.nan)
    for row, one in zip(laid, series, strict=True):
        row[: len(one)] = one
    return laid


def _of_row(row: int, parts: Sequence[Floats]) -> Floats:
    return np.array([part[row] for part in parts])
