"""Frames of readings in, frames of forecasts and alarms out: what a worker of an engine runs.

It knows pandas and the runtime of streams; neither torch nor any engine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.exceptions import StreamError
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.serving import Reading, Served, Server

KEY, VALUE, MOMENT = "key", "value", "moment"  # the first two with a number behind
GIVEN = ("channel", "value", "levels", "alarm", "bound", "error")
QUIET = (None, np.nan)
MODELS = 4  # that a process keeps loaded


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a worker needs to know to serve readings.

    Parameters
    ----------
    graph : bytes
        The step graph.
    digest : str
        Its SHA-256, by which a process knows a graph that it has loaded.
    is_instant : bool
        Whether times are microseconds of UTC; otherwise they are of the clock on the wall.
    margin : float or None
        Alarm readings that lie so many widths of their band outside of it; None alarms nothing.
    expire_after : timedelta or None
        Forget keys whose last reading is longer ago, by the times of the readings.
    """

    graph: bytes = field(repr=False, compare=False)
    digest: str
    is_instant: bool
    margin: float | None = None
    expire_after: timedelta | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Scoring:
        """Read the graph from a file."""
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no step graph {os.fspath(path)!r}.")
        graph = Path(path).read_bytes()
        return cls(graph=graph, digest=hashlib.sha256(graph).hexdigest(), **options)

    def model(self) -> StreamModel:
        """Return the loaded graph, which the process keeps."""
        return _loaded(self)

    def serve(self) -> Server:
        """Return a server that has seen nothing."""
        return Server(
            self.model(), is_keyed=True, margin=self.margin, expire_after=self.expire_after
        )

    def score(self, server: Server, frame: pd.DataFrame) -> pd.DataFrame:
        """Serve readings, whatever their order, and return what they give.

        Each key is served in the order of its times, and the k-th readings of all keys together.
        The same rows give the same bits in any order.

        Parameters
        ----------
        server : Server
            The streams; they go on.
        frame : DataFrame
            Texts key0, key1, ...; `moment` in microseconds or as datetime64; numbers value0,
            value1, ..., one column a channel.

        Returns
        -------
        DataFrame
            The same keys and moments, a row for each reading and channel, with the columns `GIVEN`.
            `levels` lists the forecasts of the lowest level, then of the next: engines are slow at
            lists of lists. Where a reading cannot be used, `error` says why and the stream is as
            before.
        """
        keys, values = (
            [str(name) for name in frame if str(name).startswith(part)] for part in (KEY, VALUE)
        )
        frame = _in_turns(frame, keys, values)
        numbers = frame[values].to_numpy(np.float64)
        readings = [
            Reading(key=key, values=one, time=time)
            for key, one, time in zip(
                _keys(frame, keys), numbers.tolist(), self._times(frame[MOMENT]), strict=True
            )
        ]
        channels = self.model().contract.channels
        rows = [row for one in server.serve(readings) for row in _rows(one, channels)]
        given = pd.DataFrame(rows, columns=GIVEN[2:], dtype=object).astype({"bound": float})
        given.insert(0, "value", numbers.reshape(-1))
        given.insert(0, "channel", np.tile(np.array(channels, object), len(frame)))
        beside = frame.loc[frame.index.repeat(len(channels)), [*keys, MOMENT]]
        return pd.concat([beside.reset_index(drop=True), given], axis=1)

    def _times(self, moments: pd.Series) -> list[Any]:
        clock = moments.to_numpy().astype("M8[us]")
        if not self.is_instant:
            return list(clock)
        # No time, and one beyond the years 1 to 9999, is left as it is for the stream to refuse.
        return [
            read.replace(tzinfo=timezone.utc) if isinstance(read, datetime) else time
            for time, read in zip(clock, clock.tolist(), strict=True)
        ]


@lru_cache(maxsize=MODELS)
def _loaded(scoring: Scoring) -> StreamModel:
    return StreamModel(scoring.graph)


def _in_turns(frame: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Sort rows: the first reading of each key, then the second of each that has one, ..."""
    frame = frame.sort_values([*keys, MOMENT, *values], kind="stable", ignore_index=True)
    turn = frame.groupby(keys, sort=False, dropna=False).cumcount().to_numpy()
    return frame.iloc[np.argsort(turn, kind="stable")].reset_index(drop=True)


def _keys(frame: pd.DataFrame, names: Sequence[str]) -> list[Any]:
    """Return a key a row, None where there is none: a text, or a tuple of texts."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None) for name in names]
    return columns[0].tolist() if len(names) == 1 else [*zip(*columns, strict=True)]


def _rows(outcome: Served | StreamError, channels: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return what a reading gave, a row for each channel, from the levels on."""
    if isinstance(outcome, StreamError):
        return [(None, None, np.nan, str(outcome))] * len(channels)
    alerts = {alert.channel: (alert.side, alert.bound) for alert in outcome.alerts}
    levels = outcome.output.quantiles.transpose(1, 2, 0).reshape(len(channels), -1).tolist()
    return [
        (numbers, *alerts.get(channel, QUIET), None)
        for channel, numbers in zip(channels, levels, strict=True)
    ]
