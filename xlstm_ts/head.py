"""The head: quantiles of the next readings from a token, and the paths beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.config import XLSTMConfig
from xlstm_ts.future import FuturePath
from xlstm_ts.patches import Recent, scaled
from xlstm_ts.scaling import Scaling


class ForecastHead(nn.Module):
    """Norm and linear map of a token, plus the linear path and that of known columns.

    Parameters
    ----------
    config : XLSTMConfig
        The shape of the model.
    """

    ordering: Tensor

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        self.config = config
        outputs = config.horizon * config.group_channels * len(config.quantiles)
        self.register_buffer("ordering", _ordering(config), persistent=False)
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        self.linear = nn.Linear(config.d_model, outputs)
        self.linear_path = (
            nn.Linear(config.linear_length, config.horizon, bias=False)
            if config.linear_length
            else None
        )
        self.future_path = FuturePath(config) if config.n_known or config.periods else None
        if self.linear_path is not None:
            nn.init.zeros_(self.linear_path.weight)

    def forward(
        self, x: Tensor, recent: Recent, scaling: Scaling, known: Tensor | None, *, stride: int
    ) -> Tensor:
        """Forecast in the units of the readings: `(S, N, H, G, Q)`.

        Parameters
        ----------
        x : Tensor
            Tokens `(S, N, E)`.
        recent : Recent
            The last readings at each.
        scaling : Scaling
            What is in force there.
        known : Tensor or None
            What is known of the readings after the first token, as `FuturePath` takes it.
        stride : int
            Readings between two tokens.
        """
        config = self.config
        x = self.norm(x)
        raw = self.linear(x).unflatten(2, (config.horizon, -1))
        if self.future_path is not None and known is not None:
            raw = raw + self.future_path(x, known, stride=stride)
        raw = raw.unflatten(3, (config.group_channels, len(config.quantiles)))
        ordered = raw
        if len(config.quantiles) > 1:
            ordered = raw[..., config.median, None] + F.softplus(raw) @ self.ordering
        if self.linear_path is not None:
            value, observed = (
                part[:, :, -config.linear_length :, : config.group_channels] for part in recent
            )
            path = self.linear_path(scaled(value, observed, scaling).transpose(2, 3))
            ordered = ordered + path.transpose(2, 3).unsqueeze(-1)
        scale, mean = (part[:, :, None, :, None] for part in (scaling.scale, scaling.mean))
        return ordered * scale + mean


def _ordering(config: XLSTMConfig) -> Tensor:
    """Return the signs that turn positive gaps into levels above and below the median.

    Level j is the median plus the gaps of the levels between: no two quantiles can cross.
    """
    levels, median = len(config.quantiles), config.median
    signs = torch.zeros(levels, levels)
    for level in range(levels):
        signs[median + 1 : level + 1, level] = 1
        signs[level:median, level] = -1
    return signs
