"""A stream from a file or standard input to a file or standard output, that may be killed.

Output is written first and the snapshot after it (see `xlstm_ts.streaming.snapshots`). What a
snapshot keeps as its offset: how many lines were read, and how many bytes were written.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from tqdm import tqdm

from xlstm_ts.checks import check_integer
from xlstm_ts.cli.faults import REPORTED, Faults
from xlstm_ts.cli.feeds import CsvRows, ReadingParser
from xlstm_ts.cli.lines import BATCH, Arrival, Line, batches, read_lines, skip_lines
from xlstm_ts.cli.services import Outcome, Service, open_service
from xlstm_ts.cli.stopping import Stop, StopAsked
from xlstm_ts.exceptions import StreamError
from xlstm_ts.streaming.serving import Reading, Server
from xlstm_ts.streaming.watching import DetectorServer

Say = Callable[[str], None]
UNUSABLE = 2  # the exit code where no line can be used


@dataclass(frozen=True, kw_only=True)
class PipeOptions:
    """What a stream is to read and write.

    Parameters
    ----------
    model : Path
        The step graph.
    data, output : Path, optional
        Files; by default standard input and output.
    form : {"auto", "json", "csv"}
        What the input is; "auto" looks at its first line.
    key, time : str, optional
        Fields of the name of the stream and of the time.
    time_format : str, optional
        How the time is written, as `datetime.strptime` has it.
    static : mapping, optional
        What is static of the stream, or of those whose readings do not say.
    margin : float, optional
        Alert readings that lie so many widths of their band outside of it.
    expire_after : timedelta, optional
        Forget streams whose last reading is longer ago, by the times of the readings.
    only_alerts : bool
        Whether readings without an alert are left out of the output.
    is_csv : bool
        Whether the output is CSV.
    snapshot : Path, optional
        Where the state is kept.
    every : int
        Lines between two snapshots.
    is_live : bool
        Whether the input is not given again from its start after a restart.
    is_strict : bool
        Whether the first line that cannot be used is an error.
    """

    model: Path
    data: Path | None = None
    output: Path | None = None
    form: Literal["auto", "json", "csv"] = "auto"
    key: str | None = None
    time: str | None = None
    time_format: str | None = None
    static: Mapping[str, Any] | None = None
    margin: float | None = None
    expire_after: timedelta | None = None
    only_alerts: bool = False
    is_csv: bool = False
    snapshot: Path | None = None
    every: int = 1000
    is_live: bool = False
    is_strict: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        check_integer("snapshot-every", self.every, least=1)


class Offset(NamedTuple):
    """How far an input was read, and an output written."""

    lines: int = 0
    written: int = 0


def run_stream(options: PipeOptions, *, say: Say) -> int:
    """Stream until the input ends, the output is closed or a signal comes; return the exit code.

    Raises
    ------
    StreamError
        Where graph, snapshot or header cannot be used; with `is_strict`, where a line cannot.
    """
    service = open_service(
        options.model,
        is_keyed=options.key is not None,
        static=options.static,
        margin=options.margin,
        expire_after=options.expire_after,
        only_alerts=options.only_alerts,
    )
    begin = Offset()
    if options.snapshot is not None and options.snapshot.exists():
        begin = _restored(service.server, options.snapshot)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        handle = stack.enter_context(_input(options.data))
        progress = stack.enter_context(_bar(handle))
        output = stack.enter_context(_output(options.output, begin))
        pipe = _Pipe(options, service, output=output, begin=begin, say=say)
        pipe.run(read_lines(handle, stop=stop, progress=progress), stop=stop)
        say(pipe.summary())
        return UNUSABLE if pipe.was_useless and not stop.exit_code else stop.exit_code


class _Pipe:
    """One run: what it reads with, what it writes with, and how far it is."""

    def __init__(
        self,
        options: PipeOptions,
        service: Service,
        *,
        output: IO[bytes],
        begin: Offset,
        say: Say,
    ) -> None:
        self._options, self._server, self._output, self._say = options, service.server, output, say
        self._has_alerts = service.has_alerts
        self._parser = ReadingParser(
            service.contract,
            key=options.key,
            time=options.time,
            time_format=options.time_format,
            report=say,
        )
        self._faults = Faults(say)
        self._rows: CsvRows | None = None
        self._lines, self._written = begin
        self._readings = self._empty = self._unusable = self._alerts = self._filled = 0
        self._write = service.to_csv if options.is_csv else service.to_json
        self._header = service.csv_header if options.is_csv else b""

    def run(self, arrivals: Iterator[Arrival], *, stop: Stop) -> None:
        """Serve all lines, and keep the state at the end."""
        every = BATCH if self._options.snapshot is None else self._options.every
        try:
            if not self._written:
                self._put(self._header)
            for batch in batches(self._opened(arrivals), every=every):
                self._take(batch)
                if self._lines % every == 0:
                    self._snapshot()
                if stop.signal is not None:
                    break
        except StopAsked:
            pass  # what was read and not yet served is read again, or lost with the pipe
        except BrokenPipeError:
            # The state has gone on with readings whose forecasts nobody got: it is not kept.
            _silence(self._output)
            return
        self._snapshot()

    def summary(self) -> str:
        """Return what was done, in a sentence."""
        counts = {"readings": self._readings, "streams": self._server.streams}
        if self._has_alerts:
            counts["with an alert"] = self._alerts
        if self._filled:
            counts["left-out stamps filled"] = self._filled
        if self._faults.count:
            counts["unusable values taken as missing"] = self._faults.count
        if self._unusable:
            counts["unusable lines"] = self._unusable
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        if self._unusable > REPORTED:
            said += f" (the first {REPORTED} are shown)"
        return said

    @property
    def was_useless(self) -> bool:
        """Whether there were lines and nothing in them could be used."""
        return self._readings == self._empty and self._unusable + self._faults.count > 0

    def _opened(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        """Return the lines to serve, after the header and what a snapshot has seen."""
        lines = (one for one in arrivals if isinstance(one, Line))
        first = next((line for line in lines if line.text.strip()), None)
        if first is None:
            return iter(())
        if self._options.form == "csv" or (self._options.form == "auto" and _is_csv(first.text)):
            self._rows = CsvRows(first.text.rstrip(b"\r"))
            self._parser.check_header(self._rows.names)
        seen = 0 if self._options.is_live else self._lines
        self._lines = max(seen, first.number if self._rows else first.number - 1)
        if self._rows is None and seen < first.number:
            return chain([first], arrivals)
        return skip_lines(arrivals, seen) if seen > first.number else arrivals

    def _take(self, batch: list[Line]) -> None:
        for lines in [[line] for line in batch] if self._options.is_strict else [batch]:
            self._serve(lines)
            self._lines = lines[-1].number
        self._output.flush()

    def _serve(self, lines: list[Line]) -> None:
        """Serve lines together, and write what they gave in their order."""
        read = {line.number: self._read(line) for line in lines if line.text.strip()}
        readings = {number: one for number, one in read.items() if isinstance(one, Reading)}
        served = dict(zip(readings, self._server.serve([*readings.values()]), strict=True))
        for number, one in read.items():
            self._give(number, served[number] if isinstance(one, Reading) else one)

    def _read(self, line: Line) -> Reading | StreamError:
        text = line.text.rstrip(b"\r")
        try:
            if self._rows is None:
                reading = self._parser.from_json(text)
            else:
                reading = self._parser.from_cells(self._rows.read(text))
        except StreamError as err:
            return err
        if reading.faults and self._options.is_strict:
            return StreamError(" ".join(reading.faults.values()))
        return reading

    def _give(self, number: int, outcome: Outcome | StreamError) -> None:
        if isinstance(outcome, StreamError):
            if self._options.is_strict:
                self._output.flush()
                self._snapshot()
                raise StreamError(f"line {number}: {outcome}") from outcome
            self._unusable += 1
            if self._unusable <= REPORTED:
                self._say(f"line {number}: {outcome}")
            return
        reading = outcome.reading
        self._readings += 1
        self._empty += all(map(math.isnan, reading.values))
        self._faults.note(reading, where=f"line {number}")
        self._filled += outcome.filled
        self._alerts += outcome.is_alert
        if outcome.is_alert or not self._options.only_alerts:
            self._put(self._write(outcome, number))

    def _put(self, text: bytes) -> None:
        self._output.write(text)
        self._written += len(text)

    def _snapshot(self) -> None:
        """Keep the state, once all that it has given is written."""
        if self._options.snapshot is None:
            return
        self._output.flush()
        if self._options.output is not None and _is_file(self._output):
            os.fsync(self._output.fileno())
        offset = Offset(self._lines, self._written)
        self._server.snapshot(self._options.snapshot, offset=offset._asdict())


def _restored(server: Server | DetectorServer, path: Path) -> Offset:
    offset = server.restore(path)
    if offset.keys() != set(Offset._fields):
        raise StreamError(f"{path} is not of a stream from a file or a pipe: give another one.")
    return Offset(**offset)


def _is_csv(first: bytes) -> bool:
    """Return whether a line is a header: no object, no number and no null."""
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    return not start.startswith((b"{", b"[")) and not _is_number(start)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _input(path: Path | None) -> Iterator[int]:
    if path is None:
        yield sys.stdin.fileno()
        return
    with path.open("rb", buffering=0) as file:
        yield file.fileno()


@contextmanager
def _output(path: Path | None, begin: Offset) -> Iterator[IO[bytes]]:
    """Open what is written to, cut to where the state is that the stream goes on from."""
    if path is None:
        yield sys.stdout.buffer
        return
    with path.open("ab") as file:
        if not _is_file(file):  # a device, or a pipe with a name
            yield file
            return
        size = file.tell()
        if size < begin.written:
            raise StreamError(
                f"{path} has {size} bytes, and the snapshot was written after {begin.written}: it "
                "is another output, or was cut. Remove the snapshot to begin anew."
            )
        file.truncate(begin.written)
        file.seek(begin.written)
        yield file


def _is_file(file: IO[bytes]) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


@contextmanager
def _bar(handle: int) -> Iterator[Callable[[int], object] | None]:
    """Show how much of a file was read, where somebody looks on."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        yield None
        return
    with tqdm(total=status.st_size, unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update


def _silence(output: IO[bytes]) -> None:
    """Let what is still buffered go nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output.fileno())
    os.close(nowhere)
