"""The standard splits that accuracy is measured on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.datasets.loaders import fetch_ett, fetch_weather

Array = NDArray[np.float64]
MONTH = 30 * 24


class Split(NamedTuple):
    """Readings z-scored by their training part, `(T, C)`, and the readings of the parts."""

    z: Array
    train: int
    validation: int

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
        values = fetch_ett(name).to_numpy()[: 20 * MONTH]
        train, validation = 12 * MONTH, 4 * MONTH
    else:
        values = fetch_weather().to_numpy()
        train, test = int(0.7 * len(values)), int(0.2 * len(values))
        validation = len(values) - train - test
    z = (values - values[:train].mean(0)) / values[:train].std(0)
    return Split(z, train, validation)
