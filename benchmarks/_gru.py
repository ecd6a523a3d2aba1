"""A GRU in place of the sLSTM cell: what the recurrence of an xLSTM brings over an older one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor, nn

from xlstm_ts.state import State, StateField


class GRUCell(nn.Module):
    """The cell of an sLSTM block, but a GRU; it takes every token as one that holds a reading."""

    def __init__(self, width: int, heads: int, conv_length: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return the fields of the state, in order."""
        return (StateField("h", (self.gru.hidden_size,)),)

    def forward(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """Run over `x` `(S, N, E)`."""
        h, last = self.gru(x, state[0].unsqueeze(0).contiguous())
        return h, (last[0],)


@contextmanager
def gru_in_place_of_slstm() -> Iterator[None]:
    """Build "s" blocks around a GRU."""
    with mock.patch("xlstm_ts.blocks.SLSTMCell", GRUCell):
        yield
