"""Windows of a series for training: cut when they are needed, never all at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """A batch of windows in standardised units.

    `value` and `observed` are `(S, context, G)`, zero where missing; `target` is
    `(S, tokens, horizon, G)`, NaN where missing.
    """

    value: Tensor
    observed: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Windows:
        """Return the windows on a device."""
        return Windows(*(part.to(device) for part in self))


class WindowSampler:
    """Cuts windows out of one standardised series.

    Parameters
    ----------
    series : Tensor
        Standardised readings `(T, C)`, NaN where missing.
    groups : int
        Groups of channels; a window holds one of them.
    context_length : int
        Readings that the model sees, a multiple of `patch_length`.
    patch_length : int
        Readings in one token.
    horizon : int
        Readings after each token that are its target.
    """

    def __init__(
        self, series: Tensor, *, groups: int, context_length: int, patch_length: int, horizon: int
    ) -> None:
        self.series = series.unflatten(1, (groups, -1)).transpose(0, 1)
        self.context_length, self.patch_length, self.horizon = context_length, patch_length, horizon
        self.starts = series.shape[0] - context_length - horizon + 1

    def draw(self, size: int, *, generator: torch.Generator) -> Windows:
        """Return `size` windows of random start and group."""
        starts = torch.randint(self.starts, (size,), generator=generator)
        groups = torch.randint(len(self.series), (size,), generator=generator)
        return self.cut(groups, starts)

    def spread(self, count: int, *, first: int = 0) -> Windows:
        """Return about `count` windows, evenly over all groups and the starts from `first`."""
        groups = len(self.series)
        per_group = max(1, min(self.starts - first, count // groups))
        starts = torch.linspace(first, self.starts - 1, per_group).round().long()
        return self.cut(torch.arange(groups).repeat_interleave(per_group), starts.repeat(groups))

    def cut(self, groups: Tensor, starts: Tensor) -> Windows:
        """Return the windows that begin at `starts` in `groups`, both `(S,)`."""
        length = self.context_length + self.horizon
        rows = starts.unsqueeze(1) + torch.arange(length)
        window = self.series[groups.unsqueeze(1), rows]
        context = window[:, : self.context_length]
        after = window[:, self.patch_length :].unfold(1, self.horizon, self.patch_length)
        observed = (~context.isnan()).to(context.dtype)
        return Windows(context.nan_to_num(nan=0.0), observed, after.transpose(2, 3))
