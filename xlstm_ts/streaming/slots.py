"""Memory of a pool: a slot for what each stream keeps between readings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.checks import check_integer
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.banks import Bank, DeviceBank, HostBank, Places
from xlstm_ts.streaming.columns import StreamColumns
from xlstm_ts.streaming.expiry import Heard
from xlstm_ts.streaming.sessions import is_away
from xlstm_ts.streaming.states import initial_state
from xlstm_ts.streaming.times import NEVER

if TYPE_CHECKING:
    from xlstm_ts.streaming.models import StreamModel

Array = NDArray[np.float32]
FEW = 16  # slots to begin with
# A batch is fastest where its states, and what the graph makes of them, stay in a cache of this
# size. A rule and no calibration: a pool that goes on must divide its readings as it did before.
CACHE = 2**20
BATCH_SIZES = (8, 128)
BYTES = 4  # a number of a state
DEVICE_BATCH = 1024  # on a GPU, whose kernels take the same time for few streams; not measured


class Slots:
    """What streams keep between readings, each in a row; rows of those that left are used again.

    Parameters
    ----------
    contract : Contract
        That of the model.
    bank : Bank
        Where states lie, empty yet.
    statics : int
        Static columns of a stream.

    Attributes
    ----------
    bank : Bank
        States, each in the place of its slot.
    static : ndarray, shape (capacity, statics)
        The static columns.
    last : ndarray of int64, shape (capacity,)
        The moment that the next reading must be after.
    untold : ndarray of int64, shape (capacity,)
        Readings since then that told no time.
    heard : Heard
        Which slots are taken, and when their streams were heard.
    """

    def __init__(self, contract: Contract, bank: Bank, *, statics: int) -> None:
        self._initial = [array.reshape(1, -1) for array in initial_state(contract)]
        self.bank = bank
        self.bank.grow(FEW)
        self.static = np.empty((FEW, statics), np.float32)
        self.last, self.untold = np.full(FEW, NEVER), np.zeros(FEW, np.int64)
        self.heard = Heard.nobody(FEW)
        self._free = [*reversed(range(FEW))]

    def take(self, static: Array, *, call: int) -> int:
        """Return a slot for a stream that joins with a call; its state is yet to be set."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.static[slot] = static
        self.heard.take(slot, call=call)
        return slot

    def leave(self, slot: int) -> None:
        """Let another stream have the slot."""
        self.heard.leave(slot)
        self._free.append(slot)

    def reset(self, places: Places) -> None:
        """Forget all readings of streams."""
        self.fill(places, self._initial)

    def fill(self, places: Places, state: Sequence[Array]) -> None:
        """Set the state of streams, `(streams or 1, numbers)`; they know no time then."""
        self.bank.scatter(places, state)
        self.last[places], self.untold[places] = NEVER, 0

    def tell(self, places: Places, moments: list[int]) -> None:
        """Note the times of readings that come now; none where none was told."""
        if moments:
            self.last[places], self.untold[places] = moments, 0
        else:
            self.untold[places] += 1

    def _grow(self) -> None:
        before = len(self.last)
        self.bank.grow(2 * before)
        self.static = _doubled(self.static)
        self.last, self.untold = _doubled(self.last), _doubled(self.untold)
        self.heard = self.heard.doubled()
        self._free += reversed(range(before, 2 * before))


def empty_slots(model: StreamModel, columns: StreamColumns, *, batch_size: int) -> Slots:
    """Return slots for streams of a model, their states where it computes."""
    kind: type[Bank] = DeviceBank if is_away(model.session) else HostBank
    bank = kind(model.session, model.contract, columns, size=batch_size)
    return Slots(model.contract, bank, statics=columns.statics)


def fitting_batch(given: int | Literal["auto"], model: StreamModel) -> int:
    """Return how many streams of a model are advanced at once, at most."""
    if given == "auto":
        numbers = sum(math.prod(described.shape) for described in model.contract.state)
        least, most = BATCH_SIZES
        fit = min(max(CACHE // (numbers * BYTES), least), most)
        return DEVICE_BATCH if is_away(model.session) else fit
    check_integer("batch_size", given, least=1)
    return int(given)


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((array, np.full_like(array, NEVER)))
