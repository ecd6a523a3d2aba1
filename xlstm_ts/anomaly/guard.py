"""What a reading may do to the models behind: one glitch must not poison their state."""

from __future__ import annotations

import numpy as np

from xlstm_ts.anomaly.stages import Floats, Stage, is_there, within

CLIP = 8.0  # scales of the error
# So many readings in a row beyond the limits are no glitch, but a level or a bad forecast.
LASTING = 3


class InputGuard(Stage):
    """Clips readings to eight scales of the error around what was expected, channel by channel.

    What lies beyond for three readings in a row passes as it is: a level shift is to be followed
    and not to be cut for ever.

    Parameters
    ----------
    n_channels : int
        C, channels.

    Attributes
    ----------
    beyond : ndarray of float64, shape (C,)
        Readings in a row beyond the limits.
    """

    STATE = ("beyond",)

    def __init__(self, n_channels: int) -> None:
        self.beyond = np.zeros(n_channels)

    def step(self, reading: Floats, expected: Floats, scale: Floats) -> Floats:
        """Return the reading `(..., C)` as the models may see it; NaN stays missing."""
        off, most = reading - expected, CLIP * scale
        counted = np.where(np.abs(off) > most, self.beyond + 1, 0.0)
        self.beyond = np.where(is_there(off), counted, self.beyond)
        return expected + np.where(self.beyond >= LASTING, off, within(off, most))
