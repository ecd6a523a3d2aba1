"""A fitted host as JSON holds it: what a file of a detector carries beside its graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.anomaly.host import AnomalyHost, restored_host
from xlstm_ts.exceptions import StreamError

VERSION = 3


def write_record(host: AnomalyHost, *, seconds: float | None) -> dict[str, Any]:
    """Return a host, as a fresh stream begins with it.

    Parameters
    ----------
    host : AnomalyHost
        A fitted one.
    seconds : float or None
        Length of the step; None where readings are counted.

    Returns
    -------
    dict
        `version`, `alpha`, `seconds`, `config`, and `state`: for each array by name its `shape`,
        `dtype` and `values` in C order, null for NaN.
    """
    return {
        "version": VERSION,
        "alpha": host.alpha,
        "seconds": seconds,
        "config": vars(host.config),
        "state": {name: _written(array) for name, array in host.fresh().state_dict().items()},
    }


def read_record(record: dict[str, Any]) -> tuple[AnomalyHost, float | None]:
    """Return the host of a record, and the length of the step.

    Raises
    ------
    StreamError
        Where the record is of another version.
    """
    if record.get("version") != VERSION:
        raise StreamError(
            f"The detector has format version {record.get('version')}, this library reads "
            f"{VERSION}: export it again."
        )
    state = {name: _read(described) for name, described in record["state"].items()}
    host = restored_host(record["config"], state, alpha=record["alpha"])
    return host, record["seconds"]


def _written(array: NDArray[Any]) -> dict[str, Any]:
    values = [None if value != value else value for value in array.ravel().tolist()]
    return {"shape": list(array.shape), "dtype": str(array.dtype), "values": values}


def _read(described: dict[str, Any]) -> NDArray[Any]:
    values = [np.nan if value is None else value for value in described["values"]]
    dtype = np.dtype(described["dtype"])
    if dtype.kind not in "biuf":  # one of text may be as wide as it says
        raise ValueError(f"an array of its state is of {dtype}")
    return np.array(values, dtype).reshape(described["shape"])
