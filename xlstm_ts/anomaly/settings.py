"""How the chain works."""

from __future__ import annotations

from dataclasses import dataclass

from xlstm_ts.anomaly.events import Policy
from xlstm_ts.checks import check_integer, check_number


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
