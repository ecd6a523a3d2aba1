"""Steps of time, and stamps that are left out: missing readings, as they are in a fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.times import NEVER, Told, wall_clock

Array = NDArray[np.float32]
DAY = 86_400 * 10**6  # in microseconds
FEW = 64  # stamps that are stepped without a look at the state


class Steps:
    """Steps of the model's time: how many lie between two times, and what the clock shows at them.

    Parameters
    ----------
    contract : Contract
        That of the model. Without a step of fixed length nothing is ever left out.
    """

    def __init__(self, contract: Contract) -> None:
        self._step = 0 if contract.seconds is None else round(contract.seconds * 1e6)
        self._zone = contract.zone
        # By the clock on the wall a day is a day, also where summer time begins or ends.
        self._is_of_days = self._step % DAY == 0

    def left_out(self, moment: int, last: int, untold: int) -> int:
        """Return how many stamps are left out before a reading, to the nearest step.

        Parameters
        ----------
        moment, last : int
            Its time, and the one that was told before.
        untold : int
            Readings since then that told no time: each takes a stamp.
        """
        if not self._step or last == NEVER:
            return 0
        return max(0, (moment - last + self._step // 2) // self._step - 1 - untold)

    def before(self, moment: int, steps: int) -> Told:
        """Return the time so many steps before a moment."""
        if self._is_of_days:
            wall = wall_clock(moment, self._zone) - np.timedelta64(steps * self._step, "us")
            return Told(np.array(wall), ())
        earlier = moment - steps * self._step
        return Told(np.array(wall_clock(earlier, self._zone)), (earlier,))

    def next_times(self, told: Told, horizon: int) -> NDArray[np.datetime64]:
        """Return what the clock on the wall shows at a time and the next ones, `(1 + horizon,)`."""
        steps = self._step * np.arange(horizon + 1)
        wall = told.wall + steps.astype("m8[us]")
        if self._zone is None or self._is_of_days:
            return wall
        moments = (told.moments[0] + steps).tolist()
        end = wall_clock(moments[-1], self._zone)
        if wall[-1].astype("M8[s]") == end.astype("M8[s]"):  # times are told to the millisecond
            return wall
        # Summer time begins or ends within the horizon.
        return np.array([wall_clock(moment, self._zone) for moment in moments])


class Recurrence:
    """Finds out that a state comes back: then of a gap of any length few steps are needed.

    A token without a reading leaves the memory of the blocks alone and turns the queue of its
    phases by one. So once the last reading has left all buffers, the state recurs with each patch,
    to the bit. It is looked for as Brent (1980, "An improved Monte Carlo factorization algorithm")
    does, by one state that is kept, after twice as many steps each time.
    """

    def __init__(self) -> None:
        self._kept: list[Array] | None = None
        self._since, self._wait = 0, FEW

    def left(self, left: int, state: Sequence[Array]) -> int:
        """Return how many steps are needed, of those still to go, after one that left a state."""
        self._since += 1
        if self._kept is not None and all(map(np.array_equal, self._kept, state)):
            return min(left, (left - 1) % self._since + 1)  # the last stamp is stepped itself
        if self._since == self._wait:
            self._kept = [array.copy() for array in state]
            self._since, self._wait = 0, 2 * self._wait
        return left
