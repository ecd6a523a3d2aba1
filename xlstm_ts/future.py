"""The path beside the head: what is known of the next readings acts on the forecast of each.

The hidden layer has a row for each pair of a token and a step of its horizon, most of the numbers
of a fit with a long horizon. Where many tokens look ahead they are therefore never all there at
once: `_Pairs` works through them in pieces that fit the cache, forwards and, once more, backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from xlstm_ts.config import XLSTMConfig
from xlstm_ts.covariates import features_ahead

FUTURE_WIDTH = 32
# Numbers of the hidden layer in one piece: a mebibyte of float32, what a core has at hand.
PIECE = 2**18


class FuturePath(nn.Module):
    """What known columns of the next readings add to the forecast of each, given the token.

    One hidden layer that all steps of the horizon share: features of the step and of the token are
    summed before the nonlinearity, so that the effect of a known event may depend on the state.

    Parameters
    ----------
    config : XLSTMConfig
        The shape of the model.
    """

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        self.horizon = config.horizon
        self.token = nn.Linear(config.d_model, FUTURE_WIDTH)
        self.ahead = nn.Linear(features_ahead(config), FUTURE_WIDTH, bias=False)
        self.out = nn.Linear(
            FUTURE_WIDTH, config.group_channels * len(config.quantiles), bias=False
        )

    def forward(self, x: Tensor, known: Tensor, *, stride: int) -> Tensor:
        """Return what is added to each step of the forecast of each token.

        Parameters
        ----------
        x : Tensor
            Tokens `(S, N, E)`.
        known : Tensor
            Features of the readings after the first token `(S, (N - 1) * stride + H, ...)`.
        stride : int
            Readings between two tokens.

        Returns
        -------
        Tensor
            `(S, N, H, G * Q)`.
        """
        token, ahead = self.token(x), self.ahead(known)
        if x.shape[1] > 1 and x.is_cpu:  # elsewhere it is launches that cost
            sizes = self.horizon, stride
            pairs: Tensor = _Pairs.apply(token, ahead, self.out.weight, *sizes)  # type: ignore[no-untyped-call]
            return pairs
        ahead = ahead.unfold(1, self.horizon, stride).transpose(2, 3)
        out: Tensor = self.out(F.silu(token.unsqueeze(2) + ahead))
        return out


class _Pairs(Function):
    """`silu(token + ahead) @ weight.T` of all pairs, without all of the hidden layer at once."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, token: Tensor, ahead: Tensor, weight: Tensor, horizon: int, stride: int
    ) -> Tensor:
        ctx.save_for_backward(token, ahead, weight)
        ctx.sizes = horizon, stride
        out = token.new_empty(*token.shape[:2], horizon, len(weight))
        for rows, n, steps, (hidden,) in _pieces(token, horizon, stride, buffers=1):
            torch.add(token[rows, n, None], ahead[rows, steps], out=hidden)
            out[rows, n] = F.silu(hidden, inplace=True) @ weight.T
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        token, ahead, weight = ctx.saved_tensors
        of_token, of_ahead, of_weight = map(torch.zeros_like, (token, ahead, weight))
        for rows, n, steps, (hidden, gate, slope) in _pieces(token, *ctx.sizes, buffers=3):
            torch.add(token[rows, n, None], ahead[rows, steps], out=hidden)
            torch.sigmoid(hidden, out=gate)
            active = hidden.mul_(gate)
            of_weight += grad[rows, n].flatten(0, 1).T @ active.flatten(0, 1)
            # The derivative of silu is gate + active * (1 - gate).
            torch.matmul(grad[rows, n], weight, out=slope)
            slope *= gate.addcmul_(active, gate, value=-1).add_(active)
            of_token[rows, n] = slope.sum(1)
            of_ahead[rows, steps] += slope
        return of_token, of_ahead, of_weight, None, None


def _pieces(
    token: Tensor, horizon: int, stride: int, *, buffers: int
) -> Iterator[tuple[slice, int, slice, Tensor]]:
    """Yield some sequences, one of their tokens, the readings that it looks ahead at, and room.

    The room is the same for all pieces: to ask the system for more costs as much as the arithmetic.
    """
    sequences, tokens, width = token.shape
    together = max(1, PIECE // (horizon * width))
    room = token.new_empty(buffers, min(together, sequences), horizon, width)
    for first in range(0, sequences, together):
        rows = slice(first, min(first + together, sequences))
        for n in range(tokens):
            steps = slice(n * stride, n * stride + horizon)
            yield rows, n, steps, room[:, : rows.stop - first]
