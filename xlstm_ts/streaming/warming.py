"""Many readings at once: the warm-up graph, with which a stream takes in its history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import COVARIATES, FUTURE, READINGS, Contract
from xlstm_ts.streaming.sessions import Graph, called, open_graph

Array = NDArray[np.float32]


class WarmUpGraph:
    """A loaded warm-up graph.

    Parameters
    ----------
    path : path-like or bytes
        A file that `xlstm_ts.export.onnx.export_onnx` wrote by `warm_up`, or what is in it.
    contract : Contract
        That of the step graph which it is to go with.
    providers, threads
        As for `open_graph`.

    Attributes
    ----------
    chunk : int
        Readings that a call takes.

    Raises
    ------
    StreamError
        Where the file is no warm-up graph, or one of other weights.
    """

    def __init__(
        self,
        path: Graph,
        contract: Contract,
        *,
        providers: Sequence[str | tuple[str, Any]],
        threads: int,
    ) -> None:
        self._session, own = open_graph(path, providers=providers, threads=threads, kind="warm-up")
        if (own.weights_hash, own.state) != (contract.weights_hash, contract.state):
            raise StreamError(
                f"{called(path)} is of other weights than the step graph: export both by one "
                "call, export_onnx(forecaster, path, warm_up=...)."
            )
        self.chunk = own.chunk or 0
        self._inputs = (*own.inputs, *(described.name for described in own.state))

    def run(
        self, readings: NDArray[Any], columns: NDArray[Any], ahead: Array, *, state: Sequence[Array]
    ) -> tuple[Array, list[Array]]:
        """Take a chunk.

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
        tuple of ndarray of float32 and list of ndarray
            The forecast after the last of them `(1, horizon, channels, levels)`, and the state.
        """
        rows = (part[None].astype(np.float32) for part in (readings, columns))
        told: dict[str, Any] = dict(
            zip((READINGS, COVARIATES, FUTURE), (*rows, ahead), strict=True)
        )
        places = len(self._inputs) - len(state)
        fed = {name: told[name] for name in self._inputs[:places]}
        fed |= dict(zip(self._inputs[places:], state, strict=True))
        forecast, *new = self._session.run(None, fed)
        return forecast, new
