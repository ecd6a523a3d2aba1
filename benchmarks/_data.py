"""The standard splits that accuracy is measured on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.datasets.loaders import fetch_ett, fetch_weather

Array = NDArray[np.float64]
MONTH = 30 * 24


class Split(NamedTuple):
    """Readings z-scored by their training part, `(T, C)`, and the readings of the parts.

    `index` has the time of each.
    """

    z: Array
    train: int
    validation: int
    index: pd.DatetimeIndex

    @property
    def known(self) -> int:
        """Readings before the test part."""
        return self.train + self.validation

    def origins(self, horizon: int, *, stride: int = 1) -> NDArray[np.int64]:
        """Return where the test windows begin to be forecast."""
        return np.arange(self.known, len(self.z) - horizon + 1, stride)


def load(name: str) -> Split:
    """Return ETTh1 (12, 4 and 4 months) or Weather (7 : 1 : 2), as in the literature."""
    if name == "ETTh1":
        frame = fetch_ett(name)[: 20 * MONTH]
        values, index = frame.to_numpy(), frame.index
        train, validation = 12 * MONTH, 4 * MONTH
    else:
        frame = fetch_weather()
        values = frame.to_numpy()
        # The literature counts its rows; in May one stamp comes twice and nine are left out.
        index = pd.date_range(end=frame.index[-1], periods=len(frame), freq="10min")
        train, test = int(0.7 * len(values)), int(0.2 * len(values))
        validation = len(values) - train - test
    z = (values - values[:train].mean(0)) / values[:train].std(0)
    return Split(z, train, validation, index)
