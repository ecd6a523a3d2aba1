"""What a detector says as a user has it: by the rows of `X`, and events as a table."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.anomaly.events import Event
from xlstm_ts.anomaly.verdicts import Trace
from xlstm_ts.panels import TimeSeries

COLUMNS = ("start", "end", "peak", "kind", "score", "is_open", "channels", "details")
SHOWN = ("share", "reading", "expected", "z")  # in `details`
MATTERS = 0.8  # of all shares, that the channels named together have


def events_frame(trace: Trace, series: TimeSeries, *, channels: Sequence[str]) -> pd.DataFrame:
    """Return the events of a trace by the times of its series, one row each."""
    rows = [_row(event, trace, series, channels) for event in trace.events]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def explanation(event: Any) -> pd.DataFrame:
    """Return shares, readings and expectations of a row of `events_frame`, the most first.

    The row may also come as a mapping, or from a CSV file, in which its `details` are text.

    Raises
    ------
    ValueError
        Where it is no such row.
    """
    is_mapping = isinstance(event, Mapping)
    details = event.get("details") if is_mapping else getattr(event, "details", None)
    if isinstance(details, str):
        details = _from_text(details)
    if not (isinstance(details, dict) and set(details) == set(SHOWN)):
        raise ValueError(
            "`event` must be a row of `detect_events` with its `details`, as `events.iloc[0]`."
        )
    frame = pd.DataFrame(details, columns=list(SHOWN), dtype=float).rename_axis("channel")
    return frame.sort_values("share", ascending=False, kind="stable")


def rows_of(X: Any, series: TimeSeries) -> Any:
    """Return where the rows of `X` stand among the readings, left-out stamps being some too."""
    index = getattr(X, "index", None)
    if index is None or len(index) == len(series.index):
        return slice(None)
    times = index.get_level_values(-1) if isinstance(index, pd.MultiIndex) else index
    return series.index.get_indexer(times)


def _from_text(details: str) -> Any:
    """Return what a CSV file holds as text; None where that is something else."""
    # A missing reading is `nan` in the text of a mapping, which is no literal.
    text = re.sub(r"(?<=: )nan(?=[,}])", "None", details)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _row(
    event: Event, trace: Trace, series: TimeSeries, channels: Sequence[str]
) -> tuple[Any, ...]:
    at, index = event.peak_at, series.index
    # A sensor that is stuck has no peak of its own: another error may have one meanwhile.
    shown = event.end if event.kind == "stuck" else at
    columns = (event.shares, series.values[shown], trace.expected[shown], trace.z[shown])
    details = {
        name: dict(zip(channels, values.tolist(), strict=True))
        for name, values in zip(SHOWN, columns, strict=True)
    }
    return (
        index[event.start], index[event.end], index[at], event.kind, event.peak, event.is_open,
        _most(event.shares, channels), details,
    )  # fmt: skip


def _most(shares: np.ndarray[Any, Any], channels: Sequence[str]) -> list[str]:
    """Return the fewest channels that have most of the shares, in their order."""
    order = np.argsort(-shares, kind="stable")
    count = int(np.searchsorted(shares[order].cumsum(), MATTERS)) + 1
    return [channels[int(j)] for j in order[:count]]
