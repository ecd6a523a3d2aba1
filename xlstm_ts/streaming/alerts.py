"""Alerts: where a reading lies outside of what was forecast for it.

A plain rule, until a model comes with a score of its own: it looks one reading ahead and takes the
band between the outermost levels as it is. Of levels 0.1 and 0.9 each fifth reading lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from xlstm_ts.checks import check_number
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.keys import key_from_json, key_to_json


class Alert(NamedTuple):
    """A reading that is out of the ordinary.

    Attributes
    ----------
    channel : str
        Of which channel.
    value : float
        The reading.
    side : {"below", "above"}
        On which side of the bound.
    bound : float
        The bound that it crossed.
    """

    channel: str
    value: float
    side: str
    bound: float


class BandRule:
    """Holds each reading against the band that was forecast for it a reading before.

    Parameters
    ----------
    contract : Contract
        What the model forecasts.
    margin : float
        Widths of the band that a reading may lie outside of it.

    Raises
    ------
    StreamError
        Where the model forecasts one level, which has no width.
    """

    def __init__(self, contract: Contract, *, margin: float) -> None:
        if len(contract.quantiles) < 2:
            level = ", ".join(map(str, contract.quantiles))
            raise StreamError(
                f"The model forecasts the level {level} alone, which is no band to lie outside of: "
                "fit with two `quantiles` at least."
            )
        check_number("margin", margin, least=0)
        self._channels, self._margin = contract.channels, margin
        self._bands: dict[Any, list[list[float]]] = {}

    def check(self, key: object, values: Iterable[float]) -> list[Alert]:
        """Return the alerts that a reading gives; a missing one gives none."""
        alerts = []
        bands = self._bands.get(key, [])
        for channel, value, (low, high) in zip(self._channels, values, bands):  # noqa: B905 - none yet
            slack = self._margin * (high - low)
            if value < low - slack:
                alerts.append(Alert(channel, value, "below", low - slack))
            elif value > high + slack:
                alerts.append(Alert(channel, value, "above", high + slack))
        return alerts

    def expect(self, key: object, quantiles: NDArray[Any]) -> None:
        """Keep the band `(horizon, channels, levels)` of the next reading."""
        self._bands[key] = quantiles[0, :, [0, -1]].T.astype(float).tolist()

    def forget(self, key: object) -> None:
        """Expect nothing of a key, as before its first reading."""
        self._bands.pop(key, None)

    def state(self) -> list[Any]:
        """Return what the rule must know to go on, as JSON."""
        return [
            [
                key_to_json(key),
                [[None if math.isnan(bound) else bound for bound in band] for band in bands],
            ]
            for key, bands in self._bands.items()
        ]

    def restore(self, state: Iterable[Any]) -> None:
        """Go on from what `state` gave."""
        self._bands = {
            key_from_json(key): [
                [math.nan if bound is None else bound for bound in band] for band in bands
            ]
            for key, bands in state
        }
