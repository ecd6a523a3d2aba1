"""The chain: a reading and what was forecast for it in, a verdict out.

Guard, online head, correction, normal scores, two aggregate scores, tails with rate feedback,
events; beside them the slow channel and the rule for stuck sensors. Nothing looks ahead and no
state grows, so a batch is the same steps one after the other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xlstm_ts.anomaly.aggregate import Aggregate
from xlstm_ts.anomaly.calibration import Calibrator
from xlstm_ts.anomaly.events import Event, EventMachine, Evidence, Policy
from xlstm_ts.anomaly.guard import InputGuard
from xlstm_ts.anomaly.head import OnlineHead
from xlstm_ts.anomaly.slow import SlowChannel
from xlstm_ts.anomaly.stages import Floats, Mask, Stage, is_there
from xlstm_ts.anomaly.stuck import StuckRule
from xlstm_ts.anomaly.surprise import Correction, fit_student, normal_score
from xlstm_ts.checks import check_integer, check_number
from xlstm_ts.exceptions import SeriesError

FEWEST = 100  # readings to learn a tail from


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """How the chain works; readings are the unit of every length.

    Parameters
    ----------
    has_model : bool
        Whether a model forecasts each reading; without one the online head is an autoregression.
    n_lags : int
        Last readings that the online head sees.
    forgetting : float
        Weight that the head gives a reading in units of that of the next one.
    half_life : float
        After which a reading weighs half, in the running location and scale of errors and in the
        guard.
    span : int
        Of the range score and of the slow channel.
    warm_up : int
        Readings of a channel without evidence at the start of a stream.
    max_gap, settle : int
        Missing readings of a channel after which it gives no evidence for `settle` readings.
    quiet, cooldown, n_rebase, policy
        As for `EventMachine`.
    """

    has_model: bool = False
    n_lags: int = 12
    forgetting: float = 0.9995
    half_life: float = 500.0
    span: int = 100
    warm_up: int = 100
    max_gap: int = 50
    settle: int = 20
    quiet: int = 20
    cooldown: int = 150
    n_rebase: int = 200
    policy: Policy = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the field."""
        check_integer("n_lags", self.n_lags, least=0 if self.has_model else 1)
        for name in ("span", "max_gap", "quiet", "n_rebase"):
            check_integer(name, getattr(self, name), least=1)
        for name in ("warm_up", "settle", "cooldown"):
            check_integer(name, getattr(self, name), least=0)
        check_number("half_life", self.half_life, least=1)
        if not 0 < self.forgetting <= 1:
            raise ValueError(f"`forgetting` must be in (0, 1], got {self.forgetting}.")
        if self.policy not in ("auto", "hold"):
            raise ValueError(f"`policy` must be 'auto' or 'hold', got {self.policy!r}.")


class Verdict(NamedTuple):
    """What the chain says of one reading.

    Attributes
    ----------
    score : float
        Calibrated -log10 p of the reading and the stretch before it together, high is abnormal; 0
        where there is no evidence.
    point_score, range_score : float
        The two it is made of: the reading alone, and the stretch.
    slow_score : float
        How far the level is from that of training; from 1 on it raises an alarm.
    alarm : bool
        Whether the reading is in alarm, by the score, the slow channel or a stuck sensor.
    event : Event or None
        The event that is open, or that has closed at this reading.
    contributions : ndarray of float64, shape (C,)
        Share of each channel in `point_score`; they sum to 1, or are 0 where nothing is scored.
    status : {"warm-up", "ok", "alarm", "missing", "stuck"}
        In a word.
    """

    score: float
    point_score: float
    range_score: float
    slow_score: float
    alarm: bool
    event: Event | None
    contributions: Floats
    status: str


class Trace(NamedTuple):
    """What the chain says of many readings.

    Attributes
    ----------
    scores, point_scores, range_scores, slow_scores : ndarray of float64, shape (T,)
        As of `Verdict`.
    alarms : ndarray of bool, shape (T,)
        Readings in alarm.
    contributions, z, expected : ndarray of float64, shape (T, C)
        Shares of the channels, normal scores of their errors, and what was expected, in raw units.
    statuses : list of str, length T
        As of `Verdict`.
    events : list of Event
        In order of time, each as it was last known.
    """

    scores: Floats
    point_scores: Floats
    range_scores: Floats
    slow_scores: Floats
    alarms: Mask
    contributions: Floats
    z: Floats
    expected: Floats
    statuses: list[str]
    events: list[Event]


class AnomalyHost(Stage):
    """The stages of a detector behind its forecast, fitted to the readings of normal operation.

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
    >>> trace = host.fresh().run(readings)
    >>> trace.scores.shape
    (2000,)
    """

    STATE = (
        "guard", "head", "correction", "aggregate", "point", "range", "slow", "stuck", "machine",
        "center", "spread", "degrees", "student", "settling", "absent",
    )  # fmt: skip

    def __init__(self, config: HostConfig, *, alpha: float = 1e-4) -> None:
        self.config, self.alpha = config, alpha

    def fit(self, readings: Floats, expected: Floats | None = None) -> AnomalyHost:
        """Learn units, errors and tails.

        Parameters
        ----------
        readings : ndarray of float64, shape (T, C)
            Raw readings in the order of time; NaN is missing.
        expected : ndarray of float64, shape (T, C), optional
            What the model forecast for each from those before it; NaN where it had none.

        Raises
        ------
        SeriesError
            Where there are too few readings to learn from.
        """
        needed = self.config.warm_up + FEWEST
        if len(readings) < needed:
            raise SeriesError(
                f"A detector needs at least {needed} readings to learn what is usual, got "
                f"{len(readings)}: give more, or lower `warm_up` ({self.config.warm_up})."
            )
        self._start(readings, expected)
        errors = self._errors(readings, expected)[self.config.warm_up :]
        self.degrees, self.student = fit_student(errors)
        z = normal_score(errors, degrees=self.degrees, scale=self.student)
        raw = np.array([self.aggregate.step(row) for row in z])
        self.point.fit(raw[:, 0])
        self.range.fit(raw[:, 1])
        return self

    def fresh(self) -> AnomalyHost:
        """Return a copy that has seen nothing of its stream, and knows what training taught."""
        host = copy.deepcopy(self)
        host.head.lags[:] = 0
        host.aggregate = Aggregate(span=self.config.span)
        host.slow.mean = host.slow.reference.copy()
        host.stuck.reset()
        host.machine = self._machine(len(self.center))
        host.settling = np.full(len(self.center), self.config.warm_up)
        host.absent = np.zeros(len(self.center), np.int64)
        return host

    def guarded(self, readings: Floats) -> Floats:
        """Return readings `(T, C)` as a model may see them, in raw units; nothing is taken in."""
        guard = copy.deepcopy(self.guard)
        standard = (readings - self.center) / self.spread
        return np.stack([guard.step(row) for row in standard]) * self.spread + self.center

    def run(self, readings: Floats, expected: Floats | None = None) -> Trace:
        """Take many readings, as `step` does one by one.

        Parameters
        ----------
        readings, expected : ndarray of float64, shape (T, C)
            As for `fit`.
        """
        given = _rows(expected, len(readings))
        verdicts, z, guesses, events = [], [], [], {}
        for reading, guess in zip(readings, given, strict=True):
            verdict = self.step(reading, guess)
            verdicts.append(verdict)
            z.append(self.z)
            guesses.append(self.expected)
            if verdict.event is not None:
                events[verdict.event.number] = verdict.event
        numbers = np.array([verdict[:4] for verdict in verdicts]).T
        return Trace(
            scores=numbers[0],
            point_scores=numbers[1],
            range_scores=numbers[2],
            slow_scores=numbers[3],
            alarms=np.array([verdict.alarm for verdict in verdicts]),
            contributions=np.array([verdict.contributions for verdict in verdicts]),
            z=np.array(z),
            expected=np.array(guesses),
            statuses=[verdict.status for verdict in verdicts],
            events=[*events.values()],
        )

    def step(self, reading: Floats, expected: Floats | None = None) -> Verdict:
        """Take one reading.

        Parameters
        ----------
        reading : ndarray of float64, shape (C,)
            The raw reading; NaN is missing.
        expected : ndarray of float64, shape (C,), optional
            What the model forecast for it; NaN or None where it had none.
        """
        value = (reading - self.center) / self.spread
        there = is_there(value)
        z = self._score(self._error(value, self._standard(expected)), there)
        now, stretch = self.aggregate.step(z)
        point, range_ = self.point.step(now), self.range.step(stretch)
        self.z = z
        slow = np.where(there, self.slow.step(value), np.nan)
        stuck = self.stuck.step(value)
        settled = self.settling <= 0
        slow, stuck = np.where(settled, slow, np.nan), stuck & settled
        # Two chances to be rare: together twice as often.
        score = max(point, range_) - math.log10(2)
        evidence = Evidence(score, z, slow, stuck)
        threshold = -math.log10(self.alpha)
        event, rebases = self.machine.step(evidence, threshold=threshold)
        if rebases:
            self.slow.rebase()
        level = float(np.nan_to_num(slow).max())
        alarm = score >= threshold or level >= 1 or bool(stuck.any())
        return Verdict(
            score=0.0 if math.isnan(score) else max(score, 0.0),
            point_score=0.0 if math.isnan(point) else point,
            range_score=0.0 if math.isnan(range_) else range_,
            slow_score=level,
            alarm=alarm,
            event=event,
            contributions=_shares(z),
            status=self._status(there, settled, alarm=alarm, is_stuck=bool(stuck.any())),
        )

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        if self.machine.acknowledge():
            self.slow.rebase()

    def _start(self, readings: Floats, expected: Floats | None) -> None:
        """Set units and stages by the readings of training."""
        config, channels = self.config, readings.shape[1]
        self.center, self.spread = find_units(readings)
        standard = (readings - self.center) / self.spread
        guesses = self._standard(expected)
        before = np.roll(standard, 1, 0) if guesses is None else guesses
        usual = np.sqrt(np.nan_to_num(np.nanmedian((standard - before)[1:] ** 2, 0)))
        nothing, one = np.zeros(channels), np.ones(channels)
        self.guard = InputGuard(nothing, one, half_life=config.half_life)
        self.head = OnlineHead(
            channels,
            n_lags=config.n_lags,
            has_model=config.has_model,
            forgetting=config.forgetting,
        )
        self.correction = Correction(
            nothing, np.maximum(1.5 * usual, 1e-3), half_life=config.half_life
        )
        self.aggregate = Aggregate(span=config.span)
        self.point, self.range = Calibrator(), Calibrator()
        self.slow, self.stuck = SlowChannel(channels, span=config.span), StuckRule(channels)
        self.slow.fit(standard)
        self.stuck.fit(standard)
        self.machine = self._machine(channels)
        self.settling = np.full(channels, config.warm_up)
        self.absent = np.zeros(channels, np.int64)

    def _machine(self, channels: int) -> EventMachine:
        config = self.config
        return EventMachine(
            channels,
            quiet=config.quiet,
            cooldown=config.cooldown,
            n_rebase=config.n_rebase,
            policy=config.policy,
        )

    def _standard(self, expected: Floats | None) -> Floats | None:
        return None if expected is None else (expected - self.center) / self.spread

    def _errors(self, readings: Floats, expected: Floats | None) -> Floats:
        """Return errors in running units, `(T, C)`."""
        standard = (readings - self.center) / self.spread
        given = _rows(self._standard(expected), len(readings))
        return np.array([self._error(*row) for row in zip(standard, given, strict=True)])

    def _error(self, value: Floats, expected: Floats | None) -> Floats:
        """Return the error of a standardised reading in running units, and learn from it."""
        guarded = self.guard.step(value)
        if expected is not None:
            # A model that has seen nothing yet: the usual level.
            expected = np.where(is_there(expected), expected, 0.0)
        forecast = self.head.forecast(expected)
        self.expected = forecast * self.spread + self.center
        self.head.update(guarded, forecast, self.correction.scale)
        return self.correction.step(value - forecast)

    def _score(self, error: Floats, there: Mask) -> Floats:
        """Return normal scores, NaN where a channel is missing or has not settled."""
        self.absent = np.where(there, 0, self.absent + 1)
        returns = self.absent > self.config.max_gap
        self.settling = np.where(
            returns, np.maximum(self.settling, self.config.settle), self.settling - there
        )
        z = normal_score(error, degrees=self.degrees, scale=self.student)
        return np.where(self.settling > 0, np.nan, z)

    def _status(
        self,
        there: Mask,
        settled: Mask,
        *,
        alarm: bool,
        is_stuck: bool,
    ) -> str:
        if not there.any():
            return "missing"
        if not (there & settled).any():
            return "warm-up"
        if is_stuck:
            return "stuck"
        return "alarm" if alarm else "ok"


def find_units(readings: Floats) -> tuple[Floats, Floats]:
    """Return center and spread `(C,)` that a share of bad readings does not move."""
    known = np.where(np.isnan(readings).all(0), 0.0, readings)
    low, center, high = np.nanquantile(known, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / 3.29  # of a normal distribution
    usual = np.nanstd(known, axis=0)
    spread = np.where(spread > 1e-9 * np.abs(center), spread, usual)
    return center, np.where(spread > 1e-9 * np.maximum(np.abs(center), 1e-9), spread, 1.0)


def _rows(values: Floats | None, length: int) -> Sequence[Floats | None]:
    return [None] * length if values is None else [*values]


def _shares(z: Floats) -> Floats:
    squares = np.nan_to_num(z) ** 2
    total = squares.sum()
    return squares / total if total > 0 else np.zeros_like(squares)
