"""What raw scores mean: how rare they are, whether that is an alarm, and of which event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlstm_ts.anomaly.calibration import Calibrator
from xlstm_ts.anomaly.comparison import Comparison
from xlstm_ts.anomaly.events import EventMachine, Evidence
from xlstm_ts.anomaly.scorer import Findings
from xlstm_ts.anomaly.settings import HostConfig
from xlstm_ts.anomaly.slow import HALFWAY
from xlstm_ts.anomaly.stages import Floats, Stage, is_there
from xlstm_ts.anomaly.verdicts import Verdict

# Of -log10 p, whose tail is exponential where p is right: a heavier one is that of faults.
NEARLY_LIGHT = 0.2
VIEW_OF = np.array([0, 0, 1, 2, 3])  # the view that each score is of
STATUSES = ("missing", "warm-up", "stuck", "ok")
LASTING = 1.2  # times as long as a level takes to become normal


class Learning(Stage):
    """Says whether what comes is to be learnt as usual.

    Beyond what training saw of a level it is not, or a shift would hide what comes after it. But
    what has lasted there for longer than a level takes to become normal is how things are.

    Parameters
    ----------
    n_rebase : int
        Readings after which a level is normal.

    Attributes
    ----------
    held, calm : int
        Readings beyond it that were not learnt, and those in a row that are not beyond it; as many
        as `n_rebase` of them begin anew.
    """

    STATE = ("held", "calm")

    def __init__(self, n_rebase: int) -> None:
        self.n_rebase, self.longest = n_rebase, round(LASTING * n_rebase)
        self.begin()

    def begin(self) -> None:
        """Begin anew, as at a new level."""
        self.held, self.calm = 0, 0

    def step(self, level: float) -> bool:
        """Return it of a reading, by how far the level is off, 1 at its limit."""
        if level < HALFWAY:
            self.calm = min(self.calm + 1, self.n_rebase)
            self.held = self.held if self.calm < self.n_rebase else 0
            return True
        self.held, self.calm = min(self.held + 1, self.longest), 0
        return self.held >= self.longest


class Decider(Stage):
    """Tails, rate feedback and events of one stream.

    Parameters
    ----------
    n_channels : int
        C, channels.
    config : HostConfig
        How it works.
    """

    STATE = ("comparison", "joint", "learning", "machine")

    def __init__(self, n_channels: int, config: HostConfig) -> None:
        self.config, self.n_channels = config, n_channels
        self.comparison, self.joint = Comparison(), Calibrator(largest_shape=NEARLY_LIGHT)
        self.begin()

    def begin(self) -> None:
        """Forget the events of the stream."""
        config = self.config
        self.learning = Learning(config.n_rebase)
        self.machine = EventMachine(
            self.n_channels,
            quiet=config.quiet,
            cooldown=config.cooldown,
            n_rebase=config.n_rebase,
            policy=config.policy,
        )

    def acknowledge(self) -> bool:
        """Close the open event; return whether its level is to be taken for the new normal."""
        was_open = self.machine.acknowledge()
        if was_open:
            self.learning.begin()
        return was_open


def decide(
    found: Findings, deciders: Sequence[Decider], *, alphas: Sequence[float]
) -> tuple[list[Verdict], list[int]]:
    """Judge a reading of each of many streams.

    Parameters
    ----------
    found : Findings
        What the readings say, a row for each stream.
    deciders : sequence of Decider
        Those of the streams.
    alphas : sequence of float
        Share of readings of each that may be in alarm.

    Returns
    -------
    tuple of list of Verdict and list of int
        The verdicts, and the rows whose level is to be taken for the new normal.
    """
    raw: list[list[float]] = found.raw.tolist()
    levels: list[float] = found.slow.max(-1).tolist()
    still: Any = found.stuck.any(-1).tolist()
    learns = [one.learning.step(level) for one, level in zip(deciders, levels, strict=True)]
    surprises = [
        (one.comparison.step if may else one.comparison.surprises)(scores)
        for one, scores, may in zip(deciders, raw, learns, strict=True)
    ]
    loudest = [one.index(max(one)) for one in surprises]
    blamed = found.errors[np.arange(len(raw)), VIEW_OF[loudest]]
    shares, statuses = _shares(blamed), _statuses(found)
    verdicts, rebased = [], []
    for row, decider in enumerate(deciders):
        threshold, told, machine = -math.log10(alphas[row]), surprises[row], decider.machine
        is_heard = not math.isnan(raw[row][0])
        score = decider.joint.step(told[loudest[row]], learns=learns[row]) if is_heard else 0.0
        level, is_still, event = levels[row], still[row], None
        alarm = score >= threshold or level >= 1 or is_still
        if alarm or not machine.is_idle:
            evidence = Evidence(
                score if is_heard else math.nan, level, is_still, blamed[row], found.slow[row],
                found.stuck[row],
            )  # fmt: skip
            event, rebases = machine.step(evidence, threshold=threshold)
            if rebases:
                rebased.append(row)
                decider.learning.begin()
        else:
            machine.row += 1
        status = "alarm" if alarm and statuses[row] == "ok" else statuses[row]
        share = shares[row].copy()  # who keeps one does not keep those of all
        scores: Any = (score, *told, level)  # in the order of the fields
        verdicts.append(Verdict(*scores, alarm, event, share, status))  # type: ignore[call-arg]
    return verdicts, rebased


def _shares(z: Floats) -> Floats:
    squares = np.where(is_there(z), z, 0.0) ** 2
    total = squares.sum(-1, keepdims=True)
    return squares / np.where(total > 0, total, 1.0)


def _statuses(found: Findings) -> list[str]:
    """Return what to call readings that are not in alarm."""
    there, stuck = found.innovation.there, found.stuck.any(-1)
    heard = (there & found.settled).any(-1)
    told: list[int]
    told = np.where(there.any(-1), np.where(heard, np.where(stuck, 2, 3), 1), 0).tolist()
    return [STATUSES[one] for one in told]
