"""States of streams: what they start from, and a check of what is given as one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract

Array = NDArray[np.float32]


def initial_state(contract: Contract) -> list[Array]:
    """Return the state of a stream that has seen nothing, in the order of the contract."""
    state = []
    for described in contract.state:
        array = np.empty(described.shape, np.float32)
        array.flat[:] = described.initial  # one number, or all of them
        state.append(array)
    return state


def checked_state(
    state: Mapping[str, ArrayLike], contract: Contract, *, rows: int | None = None
) -> list[Array]:
    """Return the arrays of a state in the order of the contract.

    Parameters
    ----------
    state : mapping
        By name, an array of one stream, or the rows that a bank gathers of many.
    contract : Contract
        That of the model.
    rows : int, optional
        Of how many streams; without it the state is of one, as the contract describes it.

    Raises
    ------
    StreamError
        Where names or shapes are not those of the model, or a number is not finite.
    """
    expected = {
        described.name: described.shape if rows is None else (rows, math.prod(described.shape))
        for described in contract.state
    }
    given = {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}
    if given.keys() != expected.keys():
        wrong = sorted(given.keys() ^ expected.keys())
        raise StreamError(f"The state is of another model: it differs in {', '.join(wrong)}.")
    for name, shape in expected.items():
        if given[name].shape != shape:
            raise StreamError(
                f"The state is of another model: `{name}` has shape {given[name].shape}, "
                f"expected {shape}."
            )
        if not np.isfinite(given[name]).all():
            raise StreamError(f"`{name}` of the state holds numbers that are not finite.")
    return [given[name] for name in expected]


def forecast_shape(contract: Contract) -> tuple[int, int, int]:
    """Return the shape of one forecast: horizon, channels, levels."""
    return contract.horizon, len(contract.channels), len(contract.quantiles)
