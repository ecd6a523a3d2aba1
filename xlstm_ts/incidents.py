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
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.panels import Floats, Panel, TimeSeries

COLUMNS = ("start", "end", "peak", "kind", "score", "is_open", "channels", "details")
SHOWN = ("share", "reading", "expected", "z")  # in `details`
MATTERS = 0.8  # of all shares, that the channels named together have


def only_series(panel: Panel) -> TimeSeries:
    """Return the series of a panel of one.

    Raises
    ------
    SeriesError
        Where there are more.
    """
    if len(panel.series) > 1:
        raise SeriesError(
            f"`X` holds {len(panel.series)} series, and what is asked for is of one: give one of "
            "them, as X.loc['name']."
        )
    return panel.longest


def events_frame(traces: Sequence[Trace], panel: Panel) -> pd.DataFrame:
    """Return the events of the series of a panel by their times, one row each."""
    frames = []
    for (key, series), trace in zip(panel.series.items(), traces, strict=True):
        rows = [_row(event, trace, series, panel.channels) for event in trace.events]
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        if not panel.is_single:
            frame.insert(0, "series", pd.Series([key] * len(frame), dtype=object))
        frames.append(frame)
    return frames[0] if panel.is_single else pd.concat(frames, ignore_index=True)


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


def by_rows(X: Any, panel: Panel, values: Sequence[Floats]) -> Floats:
    """Return what there is of each reading in the order of the rows of `X`.

    Stamps that are left out are readings too, and have no row.
    """
    if isinstance(panel.like, np.ndarray):
        return values[0] if panel.is_single else np.stack(values)
    of_each = [pd.Series(value, series.index) for series, value in zip(panel, values, strict=True)]
    if panel.is_single:
        return _aligned(of_each[0], X.index)
    long = panel.long
    index = X.index if long is None else pd.MultiIndex.from_frame(X[[long.id, long.time]])
    return _aligned(pd.concat(of_each, keys=panel.series), index)


def _aligned(values: pd.Series[Any], index: pd.Index[Any]) -> Floats:
    rows: Floats = values.reindex(index).to_numpy()
    return rows


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
