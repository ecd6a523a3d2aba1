"""One raw reading of a stream, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from xlstm_ts.anomaly.stages import Floats
from xlstm_ts.exceptions import StreamError


def read_one(reading: ArrayLike, n_channels: int) -> Floats:
    """Return a reading as `(C,)` in float64; NaN is missing, a single channel may be a number.

    Raises
    ------
    StreamError
        Where it is no number, has another number of channels or an infinity.
    """
    try:
        values = np.atleast_1d(np.asarray(reading, np.float64))
    except (TypeError, ValueError) as err:
        raise StreamError(
            f"A reading must be numbers, got {reading!r}; give NaN if missing."
        ) from err
    if values.shape != (n_channels,):
        raise StreamError(f"A reading has {n_channels} channels, got the shape {values.shape}.")
    if np.isinf(values).any():
        raise StreamError("A reading holds an infinity; give NaN where it is missing.")
    return values
