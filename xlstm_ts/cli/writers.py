"""What a stream forecasts, as text: lines of JSON, or flat rows of CSV.

Numbers have the nine digits that tell any two of float32 apart. NaN, which JSON has no word for, is
null, and an empty cell.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.alerts import Alert
from xlstm_ts.streaming.serving import Served

# A reading that was served, and the line of the input that it stood on.
ForecastWriter = Callable[[Served, int | None], bytes]


def json_writer(contract: Contract, *, has_alerts: bool) -> ForecastWriter:
    """Return a function that writes a forecast as one line.

    {"line": 7, "key": ..., "time": ..., "forecast": {channel: {"point": [...], "quantiles":
    {level: [...]}}}, "alerts": [{"channel": ..., "value": ..., "above" or "below": bound}]}, one
    number for each of the next readings. `line`, `key`, `time` and `alerts` are there where they
    are known.
    """
    channels = [json.dumps(channel) for channel in contract.channels]
    levels = [json.dumps(f"{level:g}") for level in contract.quantiles]

    def write(served: Served, line: int | None) -> bytes:
        reading, output = served.reading, served.output
        beside = {"line": line, "key": reading.key, "time": reading.shown}
        parts = [f'"{name}": {json.dumps(it)}' for name, it in beside.items() if it is not None]
        forecasts = []
        for place, channel in enumerate(channels):
            lists = [_list(output.quantiles[:, place, at]) for at in range(len(levels))]
            pairs = zip(levels, lists, strict=True)
            quantiles = ", ".join(f"{level}: {numbers}" for level, numbers in pairs)
            point = lists[contract.median]
            forecasts.append(f'{channel}: {{"point": {point}, "quantiles": {{{quantiles}}}}}')
        parts.append(f'"forecast": {{{", ".join(forecasts)}}}')
        if has_alerts:
            parts.append(f'"alerts": {json.dumps([_as_json(one) for one in served.alerts])}')
        return f"{{{', '.join(parts)}}}\n".encode()

    return write


def csv_header(contract: Contract, *, is_keyed: bool, has_alerts: bool) -> bytes:
    """Return the first line of what `csv_writer` writes."""
    levels = [f"q{level:g}" for level in contract.quantiles]
    names = ["line", *(["key"] if is_keyed else []), "time", "channel", "ahead", "forecast"]
    return rows_of_csv([[*names, *levels, *(["alert"] if has_alerts else [])]])


def csv_writer(contract: Contract, *, is_keyed: bool, has_alerts: bool) -> ForecastWriter:
    """Return a function that writes a forecast as rows, one a channel and reading ahead.

    The column of alerts tells on which side of its band the reading itself lies.
    """

    def write(served: Served, line: int | None) -> bytes:
        reading, output = served.reading, served.output
        before = [line, *([reading.key] if is_keyed else []), reading.shown]
        sides = {alert.channel: alert.side for alert in served.alerts}
        points = [_texts(output.forecast[:, at]) for at in range(len(contract.channels))]
        rows = []
        for place, channel in enumerate(contract.channels):
            after = [sides.get(channel, "")] if has_alerts else []
            for ahead, quantiles in enumerate(output.quantiles[:, place]):
                numbers = [points[place][ahead], *_texts(quantiles)]
                cells = ["" if number == "nan" else number for number in numbers]
                rows.append([*before, channel, ahead + 1, *cells, *after])
        return rows_of_csv(rows)

    return write


def _as_json(alert: Alert) -> dict[str, Any]:
    return {"channel": alert.channel, "value": alert.value, alert.side: alert.bound}


def _texts(numbers: NDArray[Any]) -> Sequence[str]:
    # One call for all: this takes as long as the graph.
    return ("%.9g " * len(numbers) % tuple(numbers.tolist())).split()


def _list(numbers: NDArray[Any]) -> str:
    return f"[{', '.join(_texts(numbers))}]".replace("nan", "null")


def rows_of_csv(rows: list[list[Any]]) -> bytes:
    """Return rows as text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
