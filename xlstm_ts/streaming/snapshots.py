"""Snapshots: what streams have left behind, in one file that is whole or not there.

The file is a line that names the format, a line with the SHA-256 of all that follows, a line of
JSON (model, offset, names and shapes of the arrays), and the arrays one after the other, little
endian. Nothing in it can run.

To lose no output and to give none twice, whatever kills the process, write output first and the
snapshot after it, with the length of the output in its offset; on starting, cut the output there::

    stream = model.create_stream()
    read, written = stream.restore("snapshot") if os.path.exists("snapshot") else (0, 0)
    with open("output", "ab") as output:
        output.truncate(written)  # what came after the snapshot is computed again, to the bit
        for count, reading in enumerate(readings_from(read), start=read + 1):
            output.write(stream.step(reading).quantiles.tobytes())
            if count % 1000 == 0:
                output.flush()
                os.fsync(output.fileno())
                stream.snapshot("snapshot", offset=[count, output.tell()])

The source must be able to give readings again from an offset on: a file, a log, Kafka, a Redis
stream. An output that cannot be cut needs outputs with their offsets, so that its reader can drop
those that it has.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.files import atomic_path, content_of

Place = str | os.PathLike[str] | IO[bytes]
MAGIC = b"xlstm-ts snapshot 2\n"
CURE = "restore an older copy, or begin with an empty state"
SHOWN = 12  # of the hash of a model, in hexadecimal: enough to tell it from others


class Snapshot(NamedTuple):
    """What a snapshot holds.

    Attributes
    ----------
    offset : object
        What the caller gave.
    content : dict
        What else has a form in JSON.
    arrays : dict of ndarray
        Arrays by name.
    """

    offset: Any
    content: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def write_snapshot(path: Place, snapshot: Snapshot, *, contract: Contract, kind: str) -> None:
    """Write a snapshot; the file appears whole, and stays whatever happens then.

    Parameters
    ----------
    path : path-like or binary file
        Where to; a file that is there is replaced. What is open (`io.BytesIO`, for a store that
        keeps bytes) is written to as it is.
    snapshot : Snapshot
        What to write.
    contract : Contract
        That of the model.
    kind : {"stream", "pool"}
        Whose state it is.

    Raises
    ------
    StreamError
        Where the offset would come back as something else.
    FileNotFoundError
        Where the folder of `path` does not exist.
    """
    arrays = {name: _little_endian(array) for name, array in snapshot.arrays.items()}
    header = {
        **_model(contract),
        "kind": kind,
        "offset": _checked_offset(snapshot.offset),
        "content": snapshot.content,
        "arrays": [[name, a.dtype.str, a.shape] for name, a in arrays.items()],
    }
    parts = [json.dumps(header).encode() + b"\n", *(array.tobytes() for array in arrays.values())]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    lines = [MAGIC, digest.hexdigest().encode(), b"\n", *parts]
    if not isinstance(path, str | os.PathLike):
        path.writelines(lines)
        return
    # Killed at any moment, a process leaves one half-written file at most, and writes over it.
    with atomic_path(Path(path), is_reused=True) as temporary, temporary.open("wb") as file:
        file.writelines(lines)


def read_snapshot(path: Place, *, contract: Contract, kind: str) -> Snapshot:
    """Read a snapshot of a model.

    Parameters
    ----------
    path : path-like or binary file
        The file.
    contract : Contract
        That of the model which is to go on from it.
    kind : {"stream", "pool"}
        Whose state it must be.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    StreamError
        Where the file is damaged, or of another model or kind.
    """
    name, magic, digest, rest = _lines(path)
    if magic != MAGIC:
        is_other = magic.startswith(MAGIC[:-2])
        what = "a snapshot of another version" if is_other else "no snapshot"
        raise StreamError(f"{name} is {what} of this library: {CURE}.")
    if digest != hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise StreamError(f"{name} is damaged, its checksum is wrong: {CURE}.")
    line, _, raw = rest.partition(b"\n")
    with content_of(name, kind="snapshot", error=StreamError):
        header = json.loads(line)
        _check_model(name, header, contract)
        if header["kind"] != kind:
            raise StreamError(
                f"{name} holds a {header['kind']}, not a {kind}: restore it into one."
            )
        return Snapshot(header["offset"], header["content"], _arrays(header["arrays"], raw))


def _lines(path: Place) -> tuple[str, bytes, bytes, bytes]:
    """Return what a snapshot is called, its first two lines, and what follows these."""
    if not isinstance(path, str | os.PathLike):
        return "what was given", path.readline(), path.readline(), path.read()
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no snapshot {name!r}.")
    with open(path, "rb") as file:
        return name, file.readline(), file.readline(), file.read()


def _model(contract: Contract) -> dict[str, Any]:
    """Return what tells one model from another; equal after a way through JSON."""
    return {
        "contract": contract.version,
        "weights": contract.weights_hash,
        "stored": contract.weights,
        "channels": list(contract.channels),
        "state": [[array.name, list(array.shape)] for array in contract.state],
        "columns": [[column.name, column.role, column.category] for column in contract.columns],
    }


def _check_model(name: str, header: dict[str, Any], contract: Contract) -> None:
    model = _model(contract)
    if {key: header[key] for key in model} == model:
        return
    raise StreamError(
        f"{name} is a snapshot of another model: of {_called(header)}; this one is of "
        f"{_called(model)}. Load the model that it was written with."
    )


def _called(model: dict[str, Any]) -> str:
    weights = model["weights"][:SHOWN] or "unknown"
    return (
        f"{', '.join(model['channels'])} (weights {weights} in {model['stored']}, contract version "
        f"{model['contract']}, {len(model['state'])} arrays of state)"
    )


def _checked_offset(offset: Any) -> Any:
    """Refuse what JSON would change, such as a tuple or keys that are numbers."""
    try:
        if json.loads(json.dumps(offset)) == offset:
            return offset
        changed = f"it would come back as {json.dumps(offset)}"
    except (TypeError, ValueError, RecursionError) as err:
        changed = str(err)
    raise StreamError(
        f"`offset` must be a JSON value (None, a number, text, a list, a dict by text), got "
        f"{offset!r}: {changed}."
    )


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _arrays(described: list[Any], raw: bytes) -> dict[str, NDArray[Any]]:
    arrays, start = {}, 0
    for name, dtype, shape in described:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(raw, dtype, count, start).reshape(shape)
        start += arrays[name].nbytes
    if start != len(raw) or not all(isinstance(name, str) for name in arrays):
        raise ValueError("its numbers are not those that it names")
    return arrays
