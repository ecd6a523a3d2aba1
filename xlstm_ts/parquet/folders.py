"""Series that are named by folders: `unique_id=a/`, as engines partition a table (Hive's way)."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from urllib.parse import unquote

from xlstm_ts.exceptions import SeriesError

NULL = "__HIVE_DEFAULT_PARTITION__"
LARGEST = 2**63  # what is beyond no file holds


def folder_series(paths: Sequence[Path], name: str) -> list[Hashable | None]:
    """Return the series that the folder `name=...` of each file tells; None where it has none.

    They are integers where all are written as such of 64 bits, else text; engines keep no type.

    Raises
    ------
    SeriesError
        Where a folder stands for rows without a series.
    """
    told = [_told(path, name) for path in paths]
    known = [text for text in told if text is not None]
    if all(map(_is_integer, known)):
        return [None if text is None else int(text) for text in told]
    return [*told]


def _told(path: Path, name: str) -> str | None:
    # From the root on: a relative path is to say what the same path says in full.
    for part in reversed(Path(os.path.abspath(path)).parent.parts):
        column, equals, text = part.partition("=")
        if equals and unquote(column) == name:
            if text == NULL:
                raise SeriesError(f"{path} holds rows that have no {name!r}; give them one.")
            return unquote(text)
    return None


def _is_integer(text: str) -> bool:
    is_number = text.removeprefix("-").isdecimal() and str(int(text)) == text
    return is_number and abs(int(text)) < LARGEST
