"""Windows of series for training: cut when they are needed, never all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F


class Windows(NamedTuple):
    """A batch of windows in standardised units.

    `value` and `observed` are `(S, context, G)`, zero where missing; `covariates` are raw,
    `(S, context + horizon, K)`, and `target` is `(S, tokens, horizon, G)`, NaN where missing;
    `groups` `(S,)` says which channels each is of.
    """

    value: Tensor
    observed: Tensor
    covariates: Tensor
    target: Tensor
    groups: Tensor

    def to(self, device: torch.device) -> Windows:
        """Return the windows on a device."""
        return Windows(*(part.to(device) for part in self))

    def rows(self, which: slice) -> Windows:
        """Return some of the windows."""
        return Windows(*(part[which] for part in self))

    def split(self, size: int) -> Iterator[Windows]:
        """Yield the windows in batches of at most `size`."""
        parts = (part.split(size) for part in self)
        return (Windows(*batch) for batch in zip(*parts, strict=True))


class Columns(NamedTuple):
    """Raw covariates of one series: `rows` `(T, K - S)` change, `static` `(S,)` never do.

    In the table of all K columns the static ones come after the first `place` of the others. They
    are kept apart: a thousand series with a name each would fill a table with a million marks of
    every reading.
    """

    rows: Tensor
    static: Tensor
    place: int

    @classmethod
    def of(cls, rows: ArrayLike, static: ArrayLike = (), place: int = 0) -> Columns:
        """Return columns of arrays, in float64."""
        changing, never = (torch.as_tensor(np.asarray(part, np.float64)) for part in (rows, static))
        return cls(changing, never, place)

    @classmethod
    def none(cls, length: int) -> Columns:
        """Return no columns beside `length` readings."""
        return cls(torch.empty(length, 0), torch.empty(0), 0)

    def part(self, which: slice) -> Columns:
        """Return the columns of some of the readings."""
        return self._replace(rows=self.rows[which])


class WindowSampler:
    """Cuts windows out of standardised series; none reaches from one into the next.

    Parameters
    ----------
    series : sequence of Tensor
        Standardised readings `(T, C)` of each series, NaN where missing. One that is shorter than
        a window is preceded by missing readings.
    groups : int
        Groups of channels; a window holds one of them.
    context_length : int
        Readings that the model sees, a multiple of `patch_length`.
    patch_length : int
        Readings in one token.
    horizon : int
        Readings after each token that are its target.
    columns : sequence of Columns, optional
        Raw covariates of each series.
    hide_readings : bool
        Keep the readings as targets alone: in the context all of them are missing.
    """

    def __init__(
        self,
        series: Sequence[Tensor],
        *,
        groups: int,
        context_length: int,
        patch_length: int,
        horizon: int,
        columns: Sequence[Columns] | None = None,
        hide_readings: bool = False,
    ) -> None:
        self.context_length, self.patch_length, self.horizon = context_length, patch_length, horizon
        self.hide_readings = hide_readings
        length = context_length + horizon
        columns = [Columns.none(len(one)) for one in series] if columns is None else columns
        padded = [_padded(one, length) for one in series]
        self.rows = torch.cat(padded).unflatten(1, (groups, -1)).transpose(0, 1)
        self.columns = torch.cat([_padded(one.rows, length) for one in columns])
        self.static = torch.stack([one.static for one in columns])
        self.static_place = columns[0].place
        self.ends = torch.tensor([len(one) for one in padded]).cumsum(0)
        # Rows at which a window may begin.
        self.starts = torch.cat(
            [
                torch.arange(end - len(one), end - length + 1)
                for one, end in zip(padded, self.ends.tolist(), strict=True)
            ]
        )

    def at(self, step: int) -> WindowSampler:
        """Return what cuts the windows of a step: always the same."""
        return self

    def draw(self, size: int, *, generator: torch.Generator, own: slice = slice(None)) -> Windows:
        """Return `size` windows of random start and group, or those of a process alone."""
        groups, starts = self.places(size, generator=generator)
        return self.cut(groups[own], starts[own])

    def places(self, size: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random groups and starts, `(size,)` each."""
        starts = torch.randint(len(self.starts), (size,), generator=generator)
        groups = torch.randint(len(self.rows), (size,), generator=generator)
        return groups, self.starts[starts]

    def has_next(self, starts: Tensor) -> Tensor:
        """Return whether the same series has a window that begins where this context ends."""
        length = self.context_length + self.horizon
        return starts + self.context_length <= self.ends[self._series(starts)] - length

    def spread(self, count: int) -> Windows:
        """Return about `count` windows, evenly over all groups and starts."""
        groups = len(self.rows)
        per_group = max(1, min(len(self.starts), count // groups))
        chosen = evenly(len(self.starts), per_group)
        return self.cut(
            torch.arange(groups).repeat_interleave(per_group), self.starts[chosen].repeat(groups)
        )

    def cut(self, groups: Tensor, starts: Tensor) -> Windows:
        """Return the windows that begin at row `starts` in `groups`, both `(S,)`."""
        length = self.context_length + self.horizon
        rows = starts.unsqueeze(1) + torch.arange(length)
        window = self.rows[groups.unsqueeze(1), rows]
        context = window[:, : self.context_length]
        after = window[:, self.patch_length :].unfold(1, self.horizon, self.patch_length)
        if self.hide_readings:
            context = torch.full_like(context, torch.nan)
        observed = (~context.isnan()).to(context.dtype)
        value = context.nan_to_num(nan=0.0)
        return Windows(value, observed, self._beside(rows), after.transpose(2, 3), groups)

    def _series(self, rows: Tensor) -> Tensor:
        """Return the series that each row is of."""
        return torch.searchsorted(self.ends, rows, right=True)

    def _beside(self, rows: Tensor) -> Tensor:
        """Return the table of all columns at rows `(S, T)`."""
        static = (
            self.static[self._series(rows[:, 0].contiguous())]
            .unsqueeze(1)
            .expand(-1, rows.shape[1], -1)
        )
        before, after = self.columns[rows].tensor_split([self.static_place], 2)
        return torch.cat((before, static, after), 2)


def evenly(total: int, count: int) -> Tensor:
    """Return `count` numbers from 0 to `total` - 1, about as far apart."""
    # In float32 the last of many millions may be rounded up.
    return torch.linspace(0, total - 1, count).round().long().clamp_max(total - 1)


def _padded(rows: Tensor, length: int) -> Tensor:
    return F.pad(rows, (0, 0, max(0, length - len(rows)), 0), value=torch.nan)
