"""The shape of a model, as one frozen value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from xlstm_ts.checks import check_fraction, check_integer, check_number, check_real

Channels = Literal["independent", "mixed"]
Transform = Literal["log", "log1p"] | None
# What is added to a reading before the logarithm.
OFFSETS = {"log": 0.0, "log1p": 1.0}


def lowest(transform: str | None) -> float:
    """Return what every reading lies above."""
    return -math.inf if transform is None else 0.0 - OFFSETS[transform]  # no -0.0


@dataclass(frozen=True, kw_only=True)
class XLSTMConfig:
    """Everything that fixes the shape of an `XLSTM`; the weights are the rest.

    Parameters
    ----------
    n_channels : int
        Channels of a reading.
    horizon : int
        Readings forecast at each step.
    quantiles : tuple of float
        Increasing levels in (0, 1) that the head forecasts; one level is a point forecast.
    patch_length : int
        Readings in one token.
    channels : {"independent", "mixed"}
        Whether each channel runs alone through the shared weights or all share one token.
    channel_embedding : bool
        Whether each of independent channels adds a learned vector of its own to its tokens.
    blocks : str
        One letter a block, from the first to the last: "m" is mLSTM, "s" is sLSTM. Without blocks
        a forecast follows from the last patch and the linear path alone.
    d_model : int
        Width of the residual stream.
    n_heads : int
        Heads of each cell; divides `d_model`.
    expansion : int
        Width of the inside of an mLSTM block in units of `d_model`.
    conv_length : int
        Tokens that the causal convolution in front of each cell sees, at least 2; 0 leaves it out.
    linear_length : int
        Readings that the linear path sees; 0 leaves it out.
    scaling_span : float
        Span, in readings, of the running mean and scale: (span + 1) / 2 readings weigh alike, what
        is older is forgotten exponentially.
    dropout : float
        Share of activations dropped in training.
    target_transform : {"log", "log1p"} or None
        What readings go through before anything else, and forecasts back: log(y) of readings above
        0, or log(1 + y) of readings above -1. A reading that has no logarithm is missing.
    n_past, n_known, n_static : int
        Columns beside the readings (see `xlstm_ts.covariates`): numbers known up to now, numbers
        known a horizon ahead too, and numbers that never change.
    periods : tuple of int
        Periods of the cyclic columns, such as 24 for the hour of the day.

    Raises
    ------
    ValueError
        Where a field is out of range; the message names the field and the rule.
    """

    n_channels: int
    horizon: int
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    patch_length: int = 1
    channels: Channels = "independent"
    channel_embedding: bool = False
    blocks: str = "mm"
    d_model: int = 64
    n_heads: int = 4
    expansion: int = 1
    conv_length: int = 4
    linear_length: int = 0
    scaling_span: float = 168.0
    dropout: float = 0.0
    target_transform: Transform = None
    n_past: int = 0
    n_known: int = 0
    n_static: int = 0
    periods: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the field."""
        at_least = {
            "n_channels": 1,
            "horizon": 1,
            "patch_length": 1,
            "d_model": 1,
            "n_heads": 1,
            "expansion": 1,
            "conv_length": 0,
            "linear_length": 0,
            "n_past": 0,
            "n_known": 0,
            "n_static": 0,
        }
        for name, least in at_least.items():
            check_integer(name, getattr(self, name), least=least)
        if self.conv_length == 1:
            raise ValueError("`conv_length` must be 0, for none, or at least 2; got 1.")
        check_number("scaling_span", self.scaling_span, least=2)
        check_fraction("dropout", self.dropout)
        if self.channels not in ("independent", "mixed"):
            raise ValueError(f"`channels` must be 'independent' or 'mixed', got {self.channels!r}.")
        if not isinstance(self.channel_embedding, bool):
            raise ValueError(
                f"`channel_embedding` must be True or False, got {self.channel_embedding!r}."
            )
        if self.channel_embedding and self.channels == "mixed":
            raise ValueError(
                "`channel_embedding` tells independent channels apart; channels='mixed' does so "
                "already, leave one of the two out."
            )
        if self.target_transform not in (None, *OFFSETS):
            raise ValueError(
                f"`target_transform` must be 'log', 'log1p' or None, got {self.target_transform!r}."
            )
        if not isinstance(self.blocks, str) or set(self.blocks) - {"m", "s"}:
            raise ValueError(
                f"`blocks` must be a word over 'm' (mLSTM) and 's' (sLSTM), got {self.blocks!r}."
            )
        if self.d_model % self.n_heads:
            raise ValueError(
                f"`n_heads` must divide `d_model`, got {self.n_heads} heads for {self.d_model}."
            )
        for period in self.periods:
            check_integer("periods", period, least=2)
        levels = self.quantiles
        for level in levels:
            check_real("quantiles", level)
        increasing = all(low < high for low, high in pairwise(levels))
        if not levels or not increasing or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"`quantiles` must increase inside (0, 1), got {levels}.")

    @property
    def groups(self) -> int:
        """Sequences that one reading of all channels is split into."""
        return self.n_channels if self.channels == "independent" else 1

    @property
    def group_channels(self) -> int:
        """Channels in one token."""
        return self.n_channels // self.groups

    @property
    def n_columns(self) -> int:
        """Columns beside the readings."""
        return self.n_past + self.n_known + self.n_static + len(self.periods)

    @property
    def buffer_length(self) -> int:
        """Readings that patch and linear path look back on, the present one included."""
        return max(self.patch_length, self.linear_length)

    @property
    def median(self) -> int:
        """Index of the level nearest to 0.5, the point forecast."""
        distances = [abs(level - 0.5) for level in self.quantiles]
        return distances.index(min(distances))
