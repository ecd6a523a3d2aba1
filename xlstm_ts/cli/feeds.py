"""What is fed to a stream as text: a line of JSON or a row of CSV becomes a reading.

A JSON line is an object with a number for each channel and each covariate by name, null where it
is missing. It may have a time, a key that names the stream, what is static of that, and "future":
{column: [one number for each of the next readings]} for the columns that are known ahead. A row of
CSV has the same by the names in the header, but nothing ahead. An empty cell is missing, and so is
what is no number, but that is told.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from xlstm_ts.cli.fields import read_key, read_number, read_time, short
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.keys import Key
from xlstm_ts.streaming.serving import Reading

TIME = "time"  # the field of the time, unless another is named
FUTURE = "future"


class ReadingParser:
    """Turns lines into readings of a model.

    Parameters
    ----------
    contract : Contract
        What the model takes.
    key : str, optional
        The field that names the stream.
    time : str, optional
        The field of the time, which then every reading must have. By default "time", if it is
        there.
    time_format : str, optional
        How the time is written, as `datetime.strptime` has it.
    report : callable
        Called with a sentence where a field is ignored, once for each name.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        key: str | None = None,
        time: str | None = None,
        time_format: str | None = None,
        report: Callable[[str], None],
    ) -> None:
        by_role = {
            role: [column.name for column in contract.columns if column.role == role]
            for role in ("past", "known", "static")
        }
        self._channels, self._report = contract.channels, report
        self._numbers = [*contract.channels, *by_role["past"], *by_role["known"]]
        self._ahead, self._static = by_role["known"], dict.fromkeys(by_role["static"])
        self._is_counted, self._form = contract.step is None, time_format
        self._lowest = contract.lowest
        self._key, self._needs_time = key, time is not None
        self._time = TIME if time is None else time
        named = [*self._numbers, *self._static, self._time, *([FUTURE] if self._ahead else [])]
        self._fields = {*named, *([] if key is None else [key])}
        self._reported: set[str] = set()

    def from_json(self, line: bytes | str, *, key: Key | None = None) -> Reading:
        """Read a line of JSON; `key` names the stream where no field does.

        Raises
        ------
        StreamError
            Where it is no object, or lacks a field, or the key or the time cannot be read.
        """
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise StreamError(f"It is not JSON: {err}.") from err
        if isinstance(record, int | float) and len(self._numbers) == 1:
            record = {self._channels[0]: record}
        if not isinstance(record, dict):
            raise StreamError(
                f"A reading is an object such as {self._example()}, got {short(record)}."
            )
        return self._read(record, key=key)

    def from_cells(self, cells: Mapping[str, str]) -> Reading:
        """Read a row of CSV, by the names of its columns.

        Raises
        ------
        StreamError
            Where a column is not there, or the key or the time cannot be read.
        """
        return self._read(cells, key=None)

    def check_header(self, names: Sequence[str]) -> None:
        """Refuse a first line that cannot be the header of such rows.

        Raises
        ------
        StreamError
            Where it does not name all that is needed, or rows cannot hold that.
        """
        if self._ahead:
            raise StreamError(
                f"The model is told {', '.join(self._ahead)} of the next readings, which a row of "
                "CSV has no room for: give JSON lines."
            )
        lacking = self._lacking(names)
        if lacking:
            raise StreamError(
                f"The first line is taken for the header of a CSV, and lacks {', '.join(lacking)}; "
                f"it has {', '.join(names)}. JSON lines are objects such as {self._example()}."
            )

    def _read(self, record: Mapping[str, Any], *, key: Key | None) -> Reading:
        self._check_fields(record)
        shown = record.get(self._time)
        time = None
        if not self._is_counted and shown not in (None, ""):
            time = read_time(shown, form=self._form)
        faults: dict[str, str] = {}
        numbers = {name: self._number(name, record[name], faults) for name in self._numbers}
        return Reading(
            key=key if self._key is None else read_key(self._key, record[self._key]),
            values=[numbers.pop(channel) for channel in self._channels],
            covariates=numbers or None,
            future=self._future(record) if self._ahead else None,
            time=time,
            shown=None if shown == "" else shown,
            static={name: record[name] for name in self._static if name in record},
            faults=faults,
        )

    def _number(self, name: str, value: Any, faults: dict[str, str]) -> float:
        """Return a number, NaN where there is none that can be used: that is a fault."""
        number = read_number(value)
        if number is None:
            faults[name] = f"{name} is {short(value)}, no number within float32"
        elif number <= self._lowest and name in self._channels:
            faults[name] = f"{name} is {short(value)}, which is not above {self._lowest:g}"
        else:
            return number
        faults[name] += ": it is taken as missing."
        return math.nan

    def _check_fields(self, record: Mapping[str, Any]) -> None:
        lacking = self._lacking(record)
        if lacking:
            raise StreamError(
                f"The reading lacks {', '.join(lacking)}; a number that is not known is null or an "
                "empty cell."
            )
        has_no_time = self._time not in record and not self._is_counted
        for name in record.keys() - self._fields - self._reported:
            self._reported.add(name)
            hint = "; if it is the time, say so by --time" if has_no_time else ""
            if self._key is None and _is_name(record[name]):
                hint += "; if it names the stream of a reading, say so by --key"
            self._report(f"field {name!r} is ignored: the model knows no such column{hint}.")

    def _lacking(self, names: Collection[str]) -> list[str]:
        needed = [*self._numbers, *([] if self._key is None else [self._key])]
        if self._needs_time:
            needed.append(self._time)
        return [name for name in needed if name not in names]

    def _future(self, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        future = record.get(FUTURE)
        if future is not None and not isinstance(future, dict):
            raise StreamError(
                f"`future` is an object with a list of numbers for {', '.join(self._ahead)}, got "
                f"{short(future)}."
            )
        return future

    def _example(self) -> str:
        return json.dumps(dict.fromkeys(self._numbers, 0.5))


def _is_name(value: Any) -> bool:
    """Return whether a value may be the name of a stream: a text that is no number and no time."""
    if not isinstance(value, str) or read_number(value) is not None:
        return False
    try:
        read_time(value, form=None)
    except StreamError:
        return True
    return False


class CsvRows:
    """Rows of CSV under one header.

    Parameters
    ----------
    header : bytes
        The first line.

    Raises
    ------
    StreamError
        Where a name is there twice, or is empty.
    """

    def __init__(self, header: bytes) -> None:
        self.names = [name.strip() for name in _cells(header)]
        if len(set(self.names)) < len(self.names) or "" in self.names:
            raise StreamError(
                f"The header must name each column once, got {', '.join(map(repr, self.names))}."
            )

    def read(self, line: bytes) -> dict[str, str]:
        """Return the cells of a row by name.

        Raises
        ------
        StreamError
            Where there are more or fewer than the header has.
        """
        cells = _cells(line)
        if len(cells) != len(self.names):
            raise StreamError(f"The row has {len(cells)} cells, the header {len(self.names)}.")
        return dict(zip(self.names, cells, strict=True))


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as err:
        raise StreamError(f"It is not a row of comma-separated values in UTF-8: {err}.") from err
