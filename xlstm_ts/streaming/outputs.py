"""What a stream gives back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class StreamOutput(NamedTuple):
    """What one reading gives.

    Attributes
    ----------
    forecast : ndarray of float32, shape (horizon, channels)
        The point forecast of the next readings, in raw units: the level nearest to the median.
    quantiles : ndarray of float32, shape (horizon, channels, levels)
        All levels.
    """

    forecast: Array
    quantiles: Array


class Filled(NamedTuple):
    """What was made of the stamps that were left out before a reading.

    Attributes
    ----------
    stamps : int
        How many there were; they were taken as missing readings.
    output : StreamOutput or None
        What the last of them gave, the forecast for the reading itself. None where there was
        none, and of a history.
    """

    stamps: int
    output: StreamOutput | None


NOTHING = Filled(0, None)
