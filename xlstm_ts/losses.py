"""The pinball loss: what makes a forecast a quantile."""

from __future__ import annotations

import torch
from torch import Tensor


def pinball_loss(forecast: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Return the mean pinball loss over the targets that are there.

    Twice the loss of Koenker and Bassett (1978, "Regression quantiles"), so that the level 0.5
    alone is the mean absolute error.

    Parameters
    ----------
    forecast : Tensor
        Quantile forecasts `(..., Q)`.
    target : Tensor
        What came, `(...)`; NaN is missing and counts for nothing.
    levels : Tensor
        Quantile levels `(Q,)`.

    Returns
    -------
    Tensor
        Scalar, differentiable in `forecast`; zero where every target is missing.
    """
    present = ~target.isnan()
    error = torch.where(present, target, 0.0).unsqueeze(-1) - forecast
    loss = 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    return (loss * present).sum() / present.sum().clamp_min(1)
