"""Many readings at once: the warm-up graph, and the history that a stream takes in with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import COVARIATES, FUTURE, READINGS, Contract
from xlstm_ts.sessions import open_graph

Array = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


class WarmUpGraph:
    """A loaded warm-up graph.

    Parameters
    ----------
    path : path-like
        A file that `xlstm_ts.export.onnx.export_onnx` wrote by `warm_up`.
    contract : Contract
        That of the step graph which it is to go with.
    threads : int
        Threads inside one call.

    Attributes
    ----------
    chunk : int
        Readings that a call takes.

    Raises
    ------
    StreamError
        Where the file is no warm-up graph, or one of other weights.
    """

    def __init__(self, path: str | os.PathLike[str], contract: Contract, *, threads: int) -> None:
        self._session, own = open_graph(path, threads=threads, kind="warm-up")
        if (own.weights_hash, own.state) != (contract.weights_hash, contract.state):
            raise StreamError(
                f"{os.fspath(path)} is of other weights than the step graph: export both by one "
                "call, export_onnx(forecaster, path, warm_up=...)."
            )
        self.chunk = own.chunk or 0
        self._inputs = (*own.inputs, *(described.name for described in own.state))

    def run(
        self, readings: NDArray[Any], columns: NDArray[Any], ahead: Array, *, state: Sequence[Array]
    ) -> Array:
        """Take a chunk; the arrays of the state are overwritten.

        Parameters
        ----------
        readings, columns : ndarray of float, shapes (chunk, channels) and (chunk, columns)
            As `reading` and `covariates` of a step.
        ahead : ndarray of float32, shape (1, horizon, columns ahead)
            As `future` of a step, for the last of the readings.
        state : sequence of ndarray of float32
            The state of a stream, in order.

        Returns
        -------
        ndarray of float32, shape (1, horizon, channels, levels)
            The forecast after the last of them.
        """
        rows = (part[None].astype(np.float32) for part in (readings, columns))
        told = dict(zip((READINGS, COVARIATES, FUTURE), (*rows, ahead), strict=True))
        places = len(self._inputs) - len(state)
        fed = {name: told[name] for name in self._inputs[:places]}
        fed |= dict(zip(self._inputs[places:], state, strict=True))
        forecast, *new = self._session.run(None, fed)
        for array, after in zip(state, new, strict=True):
            array[...] = after
        return np.asarray(forecast, np.float32)


def lay_out(history: ArrayLike, channels: Sequence[str]) -> Array:
    """Return readings `(T, C)` as the graph reads them, after a look at them.

    Raises
    ------
    StreamError
        Where they have another number of channels, an infinity, or none at all.
    """
    names = ", ".join(channels)
    try:
        if isinstance(history, np.ma.MaskedArray):
            history = np.ma.filled(history.astype(np.float64), np.nan)
        values = np.asarray(history, np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise StreamError(
            f"`history` has a row of numbers, one for each of {names}, for each reading, NaN where "
            f"it is missing; got {history!r}."
        ) from err
    if values.ndim == 1 and len(channels) == 1:
        values = values[:, None]
    if values.ndim != 2 or not len(values) or values.shape[1] != len(channels):
        raise StreamError(
            f"`history` has shape (readings, {len(channels)}), one column for each of {names}, and "
            f"at least one reading; got shape {values.shape}."
        )
    beyond = np.argwhere(np.abs(values) > LARGEST)
    if len(beyond):
        row, column = beyond[0]
        raise StreamError(
            f"The reading of {channels[column]} in row {row} of `history` is "
            f"{values[row, column]}, beyond float32; give NaN for a missing reading."
        )
    return values.astype(np.float32)
