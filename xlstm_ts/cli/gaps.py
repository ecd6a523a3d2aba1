"""Stamps that are left out between readings: a stream knows nothing of them, its user should."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from xlstm_ts.cli.feeds import Key
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.times import Time, read_times

MICROSECONDS = 1e6


class Gaps:
    """Counts steps of the model's time that are left out between two readings of a stream.

    Parameters
    ----------
    contract : Contract
        That of the model.
    """

    def __init__(self, contract: Contract) -> None:
        self._seconds, self._zone = contract.seconds, contract.zone
        self._last: dict[Key | None, int] = {}

    def count(self, key: Key | None, time: Time | Sequence[Time] | None) -> int:
        """Return how many stamps lie between a reading of a stream and the one before."""
        if time is None or self._seconds is None:
            return 0
        first = time if isinstance(time, str | datetime | np.datetime64) else time[0]
        moment = read_times(first, zone=self._zone, is_calendar=False).moments[0]
        before = self._last.get(key, moment)
        self._last[key] = moment
        return max(0, round((moment - before) / (MICROSECONDS * self._seconds)) - 1)
