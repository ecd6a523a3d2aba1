"""What a step graph and whoever runs it agree on: names, shapes, metadata.

The one thing that export and runtime share; no more than the standard library is needed.

Inputs
    `reading` `(batch, channels)` float32 in raw units, NaN = missing (so is an infinity, what lies
    1e9 times a channel's spread off, and with a transform what has no logarithm). With covariates,
    `covariates` `(batch, columns)`: the columns at the time of the reading, raw, NaN = missing.
    Where some are known ahead, `future` `(batch, horizon, known and cyclic columns)`: these at the
    times of the next readings. Then each
    array of the state, by its name.
Outputs
    `forecast` `(batch, horizon, channels, quantiles)` float32 in raw units; then each array of
    the state after the reading, by its name followed by `_next`, in the same order.

Of times the graph knows nothing: a stamp that is left out is a step with a missing reading.

A state is all float32. One stream holds an array of `shape`; a batch holds those of its streams one
after the other along the first axis, `(batch * shape[0], *shape[1:])`. Before the first reading
every element of a stream's array has the value `initial`, or has its own where that is a list, in
C order. Everything else stands, as one JSON text, under the key `xlstm_ts` of the metadata of the
ONNX file.

For other languages: inputs and outputs stand in the file in the order above, so the k-th array of
the state is `state[k]`. For one stream every axis without a number is that of `shape`. The last
axis of the forecast goes by `quantiles`, and the point forecast is the level nearest to 0.5. What a
runtime does not tell of the metadata can be read from the file: a model is a message of Protocol
Buffers, its field 14 repeats a message of a key (field 1) and a value (field 2), both UTF-8. In the
JSON text the objects of `state` hold no other object. `examples/` runs a stream in C, in Node and
in a browser with no more than this.

A warm-up graph takes `chunk` readings a call, from and to the states of the step graph of the same
weights: `readings` `(batch, chunk, channels)` in place of `reading`, `covariates`
`(batch, chunk, columns)`, `future` and `forecast` those of the last of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from xlstm_ts.columns import Column
from xlstm_ts.config import lowest

VERSION = 2
METADATA_KEY = "xlstm_ts"
DETECTOR_KEY = "xlstm_ts_detector"  # beside it, of a detector: `xlstm_ts.anomaly.records`
SCORES_VERSION = 2
SCORES_KEY = "xlstm_ts_scores"  # in its place, of a graph that scores: `xlstm_ts.export.scores`
READING = "reading"
READINGS = "readings"
COVARIATES = "covariates"
FUTURE = "future"
FORECAST = "forecast"
BATCH = "batch"
ROWS = "rows"


def next_name(state: str) -> str:
    """Return the name of the output that holds a state array after the reading."""
    return f"{state}_next"


@dataclass(frozen=True, kw_only=True)
class StateArray:
    """One array of the state: its name, its shape for one stream, its first values."""

    name: str
    shape: tuple[int, ...]
    initial: float | tuple[float, ...]

    @property
    def dims(self) -> tuple[str | int, ...]:
        """Shape in the graph: the streams of a batch follow one another along the first axis."""
        return (BATCH if self.shape[0] == 1 else ROWS, *self.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the metadata of a step graph say.

    Parameters
    ----------
    channels : tuple of str
        Names of the channels of a reading, in order.
    horizon : int
        Readings forecast at each step.
    quantiles : tuple of float
        Levels of the forecast, increasing.
    step : str or None
        Time between two readings as pandas writes it ("h"); None where readings are counted.
    state : tuple of StateArray
        The state, in order.
    library_version : str
        Version of the library that wrote the graph.
    weights_hash : str
        SHA-256 of the weights, in hexadecimal: states of one model are nothing to another.
    units : tuple of str
        Units of the channels as people write them ("kW"), in order; empty where nobody said.
    columns : tuple of Column
        The covariates, in order; those known ahead are in `future`, in the same order.
    seconds : float or None
        Length of the step; None where readings are counted, or a month or a working day is one.
    zone : str or None
        Time zone by whose clock the calendar goes; None where times have none.
    transform : str or None
        "log" or "log1p" where the graph forecasts the logarithm of y or of 1 + y.
    weights : str
        What the large matrices are stored as: "float32", "float16" or "int8".
    weights_error : float or None
        What rounding them costs in the forecast, in units of a channel's scale; None in float32.
    chunk : int or None
        Readings that a call of a warm-up graph takes; None for a step graph.
    version : int
        Version of this contract.
    """

    channels: tuple[str, ...]
    horizon: int
    quantiles: tuple[float, ...]
    step: str | None
    state: tuple[StateArray, ...]
    library_version: str
    weights_hash: str = ""
    units: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    seconds: float | None = None
    zone: str | None = None
    transform: str | None = None
    weights: str = "float32"
    weights_error: float | None = None
    chunk: int | None = None
    version: int = VERSION

    @property
    def median(self) -> int:
        """Index of the level nearest to 0.5, the point forecast."""
        distances = [abs(level - 0.5) for level in self.quantiles]
        return distances.index(min(distances))

    @property
    def lowest(self) -> float:
        """What a reading lies above; one that does not has no logarithm, and is missing."""
        return lowest(self.transform)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that are not state, in order."""
        beside = (COVARIATES,) if self.columns else ()
        ahead = (FUTURE,) if any(column.is_ahead for column in self.columns) else ()
        return (READING if self.chunk is None else READINGS, *beside, *ahead)

    def to_json(self) -> str:
        """Return the contract as the text that the file carries."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read the text that a file carries.

        Raises
        ------
        ValueError
            Where the text is not a contract of a version that this library knows.
        """
        raw = json.loads(text)
        version = raw.get("version") if isinstance(raw, dict) else None
        if version != VERSION:
            raise ValueError(
                f"contract version {version}, this library reads version {VERSION}: export it again"
            )
        try:
            state = tuple(
                StateArray(**{name: _frozen(value) for name, value in array.items()})
                for array in raw["state"]
            )
            tuples = {name: tuple(raw[name]) for name in ("channels", "quantiles", "units")}
            columns = tuple(Column(**column) for column in raw.get("columns", ()))
            return cls(**{**raw, **tuples, "state": state, "columns": columns})
        except (KeyError, TypeError) as err:
            raise ValueError(f"incomplete contract: {err}") from err


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
