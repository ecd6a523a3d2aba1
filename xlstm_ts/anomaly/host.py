"""The chain: a reading and what was forecast of it in, a verdict out.

`Scorer` is its arithmetic, up to a raw score for each view of a reading, and `Decider` what these
scores mean: tails, feedback of the rate, events. Nothing looks ahead and no state grows, so a batch
is the same steps one after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.anomaly.budgets import find_alpha
from xlstm_ts.anomaly.decider import Decider, decide
from xlstm_ts.anomaly.scorer import Scorer
from xlstm_ts.anomaly.settings import HostConfig
from xlstm_ts.anomaly.stages import Arrays, Floats, Stage, is_there
from xlstm_ts.anomaly.tail import NEVER_LEARNT
from xlstm_ts.anomaly.verdicts import Trace, Verdict, trace
from xlstm_ts.anomaly.whitening import Innovation, Whitening
from xlstm_ts.exceptions import SeriesError

FEWEST = 10  # readings to learn a tail from
MOST_ODD = 0.5  # of training: beyond that it is no anomaly
FORGOTTEN = 1000  # missing readings after which forecasts in their place have come to rest
LEAVES = 3  # spans until the score of the stretch has forgotten a reading


class AnomalyHost(Stage):
    """The stages of a detector around its model, fitted to readings of normal operation.

    Parameters
    ----------
    config : HostConfig
        How it works.
    alpha : float, default=1e-4
        Share of readings in alarm; may be set at any time.

    Examples
    --------
    >>> import numpy as np
    >>> readings = np.random.default_rng(0).standard_normal((2000, 2))
    >>> host = AnomalyHost(HostConfig()).fit(readings)
    >>> host.fresh().run(readings).scores.shape
    (2000,)
    """

    def __init__(self, config: HostConfig, *, alpha: float = 1e-4) -> None:
        self.config, self.alpha = config, alpha

    def build(self, readings: Floats) -> None:
        """Make all stages, as they are before a fit, for channels like those of `(T, C)`."""
        self.scorer = Scorer(readings, self.config)
        self.decider = Decider(readings.shape[1], self.config)
        self._begin()

    def state_dict(self) -> Arrays:
        """Return a copy of the state of both, by the names of their stages."""
        return {**self.scorer.state_dict(), **self.decider.state_dict()}

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.scorer._load(state)
        self.decider._load(state)

    @property
    def whitening(self) -> Whitening:
        """The front of the chain."""
        return self.scorer.whitening

    @property
    def n_channels(self) -> int:
        """Channels of a reading."""
        return len(self.whitening.center)

    def start(self, series: Sequence[Floats]) -> list[list[Innovation]]:
        """Begin a fit: learn units and weights, and return the innovations a model may learn from.

        Parameters
        ----------
        series : sequence of ndarray of float64, shape (T, C)
            Raw readings of one series or several of the same kind, each in the order of time; NaN
            is missing.

        Raises
        ------
        SeriesError
            Where there are too few readings to learn from.
        """
        warm_up = self.config.warm_up
        known = sum(np.count_nonzero(is_there(one[warm_up:]).any(1)) for one in series)
        if known < FEWEST:
            raise SeriesError(
                f"A detector needs at least {warm_up + FEWEST} readings to learn what is usual, "
                f"{FEWEST} of them known after the first {warm_up} of a series, and `X` has "
                f"{sum(map(len, series))}, {known} of them so: give more, or lower `warm_up`."
            )
        self.build(np.concatenate(series))
        innovations = []
        for one in series:
            self.whitening.reset()
            innovations.append([self.whitening.step(reading) for reading in one])
        return innovations

    def finish(
        self,
        innovations: Sequence[list[Innovation]],
        quantiles: Sequence[Floats] | None = None,
    ) -> AnomalyHost:
        """End a fit: learn limits and tails.

        Parameters
        ----------
        innovations : sequence of list of Innovation
            What `start` gave.
        quantiles : sequence of ndarray of float64, shape (T, C, Q), optional
            What the model forecast of the error of each from those before it, in order of the
            levels, an odd number of them; NaN where it had none.
        """
        config, scorer, comparison = self.config, self.scorer, self.decider.comparison
        values = [np.array([one.value for one in series]) for series in innovations]
        scorer.slow.fit(values)
        scorer.stuck.fit(values)
        guesses = [None] * len(innovations) if quantiles is None else [*quantiles]
        if quantiles is not None:
            scorer.errors.fit(np.concatenate([one[config.warm_up :] for one in quantiles]))
        raw = self._raw(innovations, guesses)
        comparison.fit(raw)
        point = comparison.point
        surprises = np.array([point.surprise(now) for now in raw[:, 0].tolist()])
        odd = surprises >= NEVER_LEARNT  # false of NaN
        # Anomalies, and what they leave in the score of the stretch.
        lasting = np.convolve(odd, np.ones(LEAVES * config.span))[: len(odd)] > 0
        if 0 < lasting.mean() < MOST_ODD:
            raw = raw[~lasting]
            comparison.fit(raw)
        scored = raw[~np.isnan(raw[:, 0])]
        largest = [max(comparison.surprises(row)) for row in scored.tolist()]
        self.decider.joint.fit(np.array(largest))
        self._begin()
        return self

    def _raw(
        self, innovations: Sequence[list[Innovation]], quantiles: Sequence[Floats | None]
    ) -> Floats:
        """Return raw scores of training without the first readings of each series, `(T, views)`."""
        aggregate, skipped = self.scorer.aggregate, self.config.warm_up
        views = []
        for series, guesses in zip(innovations, quantiles, strict=True):
            rows = zip(series, _rows(guesses, len(series)), strict=True)
            views.append([self.scorer.view(*row) for row in [*rows][skipped:]])
        aggregate.fit([one for series in views for one in series])
        raw = []
        for series_views in views:
            aggregate.reset()
            raw += [aggregate.step(aggregate.weigh(one)) for one in series_views]
        return np.array(raw)

    def fit(self, readings: Floats) -> AnomalyHost:
        """Fit without a model: the online head is the only forecast."""
        return self.finish(self.start([readings]))

    def fresh(self) -> AnomalyHost:
        """Return a copy that has seen nothing of its stream, and knows what training taught."""
        host = copy.deepcopy(self)
        host.whitening.reset()
        host._begin()
        return host

    def run(self, readings: Floats) -> Trace:
        """Take many readings without a model, as `step` does one by one."""
        return self.judge([self.whitening.step(reading) for reading in readings])

    def judge(self, innovations: list[Innovation], quantiles: Floats | None = None) -> Trace:
        """Judge many innovations; `quantiles` `(T, C, Q)` as for `finish`."""
        verdicts, z = [], []
        for innovation, guess in zip(innovations, _rows(quantiles, len(innovations)), strict=True):
            verdicts.append(self.judge_one(innovation, guess))
            z.append(self.last.forecast)
        expected = np.array([one.expected for one in innovations])
        scale = np.array([one.scale for one in innovations])
        return trace(verdicts, np.array(z), expected, scale)

    def step(self, reading: Floats, quantiles: Floats | None = None) -> Verdict:
        """Take one raw reading `(C,)`, NaN where missing, and what the model forecast of its error.

        Without a model `quantiles` is None.
        """
        innovation = self.whitening.step(reading)
        return self.judge_one(innovation, quantiles)

    def judge_one(self, innovation: Innovation, quantiles: Floats | None = None) -> Verdict:
        """Judge one innovation by the forecast of it, `(C, Q)`."""
        found = self.scorer.step(innovation, quantiles)
        self.last = found.views
        (verdict,), rebased = decide(found.as_row(), [self.decider], alphas=[self.alpha])
        if rebased:
            self.scorer.slow.rebase()
        return verdict

    @property
    def longest_memory(self) -> int:
        """Missing readings in a row after which one more changes nothing but counts."""
        config = self.config
        return FORGOTTEN + config.n_rebase + config.cooldown + config.quiet

    def pass_over(self, count: int) -> None:
        """Take missing readings of all channels after `longest_memory` of them, all at once."""
        self.whitening.gap = self.whitening.gap + count
        self.decider.machine.row += count

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        if self.decider.acknowledge():
            self.scorer.slow.rebase()

    def _begin(self) -> None:
        """Forget the stream."""
        # From the median of training: a start above it would be news where nothing ever happens.
        self.scorer.begin(max(0.0, float(self.decider.comparison.range.knots[1])))
        self.decider.begin()


def restored_host(
    config: Mapping[str, Any], state: Mapping[str, NDArray[Any]], *, alpha: float
) -> AnomalyHost:
    """Return a host from the fields of its configuration and what `state_dict` gave."""
    host = AnomalyHost(HostConfig(**config), alpha=find_alpha(alpha=alpha))
    channels, weights = len(state["whitening/center"]), 1 + host.config.n_lags
    squares = {"head/doubt": (channels, weights, weights), "relation/covariance": (channels,) * 2}
    # Memory that grows with a square is taken only for what the state itself holds.
    if any(state[f"whitening/{k}"].shape != size for k, size in squares.items()):
        raise ValueError("its state has other channels or lags than its configuration")
    host.build(np.zeros((2, channels)))
    host.load_state_dict(state)
    return host


def _rows(values: Floats | None, length: int) -> list[Floats | None]:
    return [None] * length if values is None else [*values]
