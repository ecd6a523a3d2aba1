"""Keys of a pool: what comes back from a snapshot as what it was."""

from __future__ import annotations

from typing import Any

import numpy as np

from xlstm_ts.exceptions import StreamError

Key = str | int | tuple[Any, ...]


def plain_key(key: object) -> Key:
    """Return a key without types of numpy, equal to what was given.

    Raises
    ------
    StreamError
        Where it is no text, no integer and no tuple of keys.
    """
    if isinstance(key, tuple):
        return tuple(plain_key(part) for part in key)
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    raise StreamError(
        "A key is a text, an integer or a tuple of these, so that a snapshot can give it back; got "
        f"{key!r}: give str(key)."
    )


def key_to_json(key: Any) -> Any:
    """Return a key as JSON has it, a tuple as a list."""
    return [key_to_json(part) for part in key] if isinstance(key, tuple) else key


def key_from_json(key: Any) -> Key:
    """Return the key that JSON made a list of, if it was a tuple."""
    return tuple(key_from_json(part) for part in key) if isinstance(key, list) else key
