"""The chain: a reading and what was forecast of it in, a verdict out.

Whitening (guard, online head, correction), views of the reading, one raw score for each, tails and
rate feedback, events; beside them the slow channel and the rule for stuck sensors. Nothing looks
ahead and no state grows, so a batch is the same steps one after the other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.anomaly.aggregate import Aggregate
from xlstm_ts.anomaly.budgets import find_alpha
from xlstm_ts.anomaly.calibration import Calibrator
from xlstm_ts.anomaly.comparison import Comparison
from xlstm_ts.anomaly.events import EventMachine, Evidence, Policy
from xlstm_ts.anomaly.evidence import ForecastErrors, Views
from xlstm_ts.anomaly.slow import SlowChannel
from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there
from xlstm_ts.anomaly.stuck import StuckRule
from xlstm_ts.anomaly.tail import NEVER_LEARNT
from xlstm_ts.anomaly.verdicts import Trace, Verdict, trace
from xlstm_ts.anomaly.whitening import Innovation, Whitening
from xlstm_ts.checks import check_integer, check_number
from xlstm_ts.exceptions import SeriesError

FEWEST = 10  # readings to learn a tail from
MOST_ODD = 0.5  # of training: beyond that it is no anomaly
FORGOTTEN = 1000  # missing readings after which forecasts in their place have come to rest
LEAVES = 3  # spans until the score of the stretch has forgotten a reading
# Of -log10 p, whose tail is exponential where p is right: a heavier one is that of faults.
NEARLY_LIGHT = 0.2
VIEW_OF = (0, 0, 1, 2, 3)  # the view that each score is of


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """How the chain works; readings are the unit of every length.

    Parameters
    ----------
    n_lags : int
        Last readings that the online head sees.
    forgetting : float
        Weight that the head gives a reading in units of that of the next one.
    half_life : float
        After which a reading weighs half in the running location and scale of errors.
    span, slow_span : int
        Of the range score, and of the slow channel.
    warm_up : int
        Readings of a channel without evidence at the start of a stream.
    max_gap, settle : int
        Missing readings of a channel after which it gives no evidence for `settle` readings.
    quiet, cooldown, n_rebase, policy
        As for `EventMachine`.
    """

    n_lags: int = 12
    forgetting: float = 0.9995
    half_life: float = 500.0
    span: int = 10
    slow_span: int = 20
    warm_up: int = 100
    max_gap: int = 50
    settle: int = 20
    quiet: int = 20
    cooldown: int = 150
    n_rebase: int = 1000
    policy: Policy = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the field."""
        for name in ("n_lags", "span", "slow_span", "max_gap", "quiet", "n_rebase"):
            check_integer(name, getattr(self, name), least=1)
        for name in ("warm_up", "settle", "cooldown"):
            check_integer(name, getattr(self, name), least=0)
        check_number("half_life", self.half_life, least=1)
        if not 0 < self.forgetting <= 1:
            raise ValueError(f"`forgetting` must be in (0, 1], got {self.forgetting}.")
        if self.policy not in ("auto", "hold"):
            raise ValueError(f"`policy` must be 'auto' or 'hold', got {self.policy!r}.")


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

    STATE = (
        "whitening", "errors", "aggregate", "comparison", "joint", "slow", "stuck", "machine",
        "settling",
    )  # fmt: skip

    def __init__(self, config: HostConfig, *, alpha: float = 1e-4) -> None:
        self.config, self.alpha = config, alpha

    def build(self, readings: Floats) -> None:
        """Make all stages, as they are before a fit, for channels like those of `(T, C)`."""
        config, channels = self.config, readings.shape[1]
        self.whitening = Whitening(
            readings,
            n_lags=config.n_lags,
            forgetting=config.forgetting,
            half_life=config.half_life,
        )
        self.errors = ForecastErrors(channels, half_life=config.half_life)
        self.comparison, self.joint = Comparison(), Calibrator(largest_shape=NEARLY_LIGHT)
        self.aggregate = Aggregate(channels, span=config.span)
        self.slow, self.stuck = SlowChannel(channels, span=config.slow_span), StuckRule(channels)
        self._begin()

    @property
    def n_channels(self) -> int:
        """Channels of a reading."""
        return len(self.whitening.center)

    def start(self, readings: Floats) -> list[Innovation]:
        """Begin a fit: learn units and weights, and return the innovations a model may learn from.

        Parameters
        ----------
        readings : ndarray of float64, shape (T, C)
            Raw readings in the order of time; NaN is missing.

        Raises
        ------
        SeriesError
            Where there are too few readings to learn from.
        """
        warm_up = self.config.warm_up
        known = np.count_nonzero(is_there(readings[warm_up:]).any(1))
        if known < FEWEST:
            raise SeriesError(
                f"A detector needs at least {warm_up + FEWEST} readings to learn what is usual, "
                f"{FEWEST} of them known after the first {warm_up}, and `X` has {len(readings)}, "
                f"{known} of them so: give more, or lower `warm_up`."
            )
        self.build(readings)
        return [self.whitening.step(reading) for reading in readings]

    def finish(self, innovations: list[Innovation], quantiles: Floats | None = None) -> AnomalyHost:
        """End a fit: learn limits and tails.

        Parameters
        ----------
        innovations : list of Innovation
            What `start` gave.
        quantiles : ndarray of float64, shape (T, C, Q), optional
            What the model forecast of the error of each from those before it, in order of the
            levels, an odd number of them; NaN where it had none.
        """
        config = self.config
        values = np.array([one.value for one in innovations])
        self.slow.fit(values)
        self.stuck.fit(values)
        known = innovations[config.warm_up :]
        guesses = None if quantiles is None else quantiles[config.warm_up :]
        if guesses is not None:
            self.errors.fit(guesses)
        raw = self._raw(known, guesses)
        self.comparison.fit(raw)
        point = self.comparison.point
        surprises = np.array([point.surprise(now) for now in raw[:, 0].tolist()])
        odd = surprises >= NEVER_LEARNT  # false of NaN
        # Anomalies, and what they leave in the score of the stretch.
        lasting = np.convolve(odd, np.ones(LEAVES * config.span))[: len(odd)] > 0
        if 0 < lasting.mean() < MOST_ODD:
            raw = raw[~lasting]
            self.comparison.fit(raw)
        scored = raw[~np.isnan(raw[:, 0])]
        self.joint.fit(np.array([max(self.comparison.surprises(row)) for row in scored.tolist()]))
        self._begin()
        return self

    def _raw(self, innovations: list[Innovation], quantiles: Floats | None) -> Floats:
        """Return raw scores of training, `(T, views)`."""
        rows = zip(innovations, _rows(quantiles, len(innovations)), strict=True)
        views = [self._views(*row) for row in rows]
        self.aggregate.fit(views)
        return np.array([self.aggregate.step(self.aggregate.weigh(one)) for one in views])

    def _views(self, innovation: Innovation, quantiles: Floats | None) -> Views:
        level = np.where(self.slow.is_held, innovation.value - self.slow.reference, np.nan)
        error = self.errors.step(innovation.error, quantiles)
        return Views(error, level, innovation.recent, innovation.relation)

    def fit(self, readings: Floats) -> AnomalyHost:
        """Fit without a model: the online head is the only forecast."""
        return self.finish(self.start(readings))

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
        rows = zip(innovations, _rows(quantiles, len(innovations)), strict=True)
        judged = []
        for innovation, guess in rows:
            verdict = self.judge_one(innovation, guess)
            judged.append((innovation, verdict, self.last))
        return trace(judged)

    def step(self, reading: Floats, quantiles: Floats | None = None) -> Verdict:
        """Take one raw reading `(C,)`, NaN where missing, and what the model forecast of its error.

        Without a model `quantiles` is None.
        """
        innovation = self.whitening.step(reading)
        return self.judge_one(innovation, quantiles)

    def judge_one(self, innovation: Innovation, quantiles: Floats | None = None) -> Verdict:
        """Judge one innovation by the forecast of it, `(C, Q)`."""
        settled = self._settle(innovation)
        views = self.last = self._views(innovation, quantiles).only(settled)
        weighed = self.aggregate.weigh(views)
        raw = self.aggregate.step(weighed)
        surprises = self.comparison.step(raw)
        largest = max(surprises)
        score = self.joint.step(math.nan if math.isnan(raw[0]) else largest)
        blamed = weighed[VIEW_OF[surprises.index(largest)]]
        slow = np.where(settled & innovation.there, self.slow.step(innovation.value), 0.0)
        stuck = self.stuck.step(innovation.value) & settled
        threshold = -math.log10(self.alpha)
        event, rebases = self.machine.step(
            Evidence(score, blamed, slow, stuck), threshold=threshold
        )
        if rebases:
            self.slow.rebase()
        level = float(slow.max())
        alarm = score >= threshold or level >= 1 or bool(stuck.any())
        point, stretch, against_level, recent, relation = surprises
        return Verdict(
            score=0.0 if math.isnan(score) else score,
            point_score=point,
            range_score=stretch,
            level_score=against_level,
            recent_score=recent,
            relation_score=relation,
            slow_score=level,
            alarm=alarm,
            event=event,
            contributions=_shares(blamed),
            status=_status(innovation.there, settled, alarm=alarm, is_stuck=bool(stuck.any())),
        )

    @property
    def longest_memory(self) -> int:
        """Missing readings in a row after which one more changes nothing but counts."""
        config = self.config
        return FORGOTTEN + config.n_rebase + config.cooldown + config.quiet

    def pass_over(self, count: int) -> None:
        """Take missing readings of all channels after `longest_memory` of them, all at once."""
        self.whitening.gap = self.whitening.gap + count
        self.machine.row += count

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        if self.machine.acknowledge():
            self.slow.rebase()

    def _begin(self) -> None:
        """Forget the stream."""
        config, channels = self.config, self.n_channels
        # From the median of training: a start above it would be news where nothing ever happens.
        self.aggregate.running = max(0.0, float(self.comparison.range.knots[1]))
        self.slow.reset()
        self.stuck.reset()
        self.machine = EventMachine(
            channels,
            quiet=config.quiet,
            cooldown=config.cooldown,
            n_rebase=config.n_rebase,
            policy=config.policy,
        )
        self.settling = np.full(channels, config.warm_up)

    def _settle(self, innovation: Innovation) -> Mask:
        """Return the channels that give evidence: neither new nor back from a long gap."""
        there = innovation.there
        is_back = there & (innovation.gap > self.config.max_gap)
        most = np.maximum(self.settling, self.config.settle)
        left = np.where(is_back, most, self.settling)
        self.settling = np.maximum(left - there, 0)
        return left <= 0


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


def _shares(z: Floats) -> Floats:
    squares = np.where(is_there(z), z, 0.0) ** 2
    total = squares.sum()
    return squares / total if total > 0 else squares


def _status(there: Mask, settled: Mask, *, alarm: bool, is_stuck: bool) -> str:
    if not there.any():
        return "missing"
    if not (there & settled).any():
        return "warm-up"
    if is_stuck:
        return "stuck"
    return "alarm" if alarm else "ok"
