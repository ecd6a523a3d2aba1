"""Checkpoints: a training in one file, from which the same fit goes on and no other."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_ts.exceptions import CheckpointError
from xlstm_ts.files import atomic_path, check_folder

FORMAT = "xlstm-ts checkpoint"
VERSION = 1
CURE = "Delete the file to train from the start, or give another `checkpoint`."


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds a training in progress.

    Parameters
    ----------
    path : Path
        The file; the folder is there.
    fingerprint : dict of str
        What the training follows from, as `fingerprint` gives it.

    Raises
    ------
    FileNotFoundError
        Where the folder of `path` does not exist.
    """

    path: Path
    fingerprint: dict[str, str]

    def __post_init__(self) -> None:
        """Refuse a folder that is not there now, rather than after the first steps."""
        check_folder(self.path)

    def write(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers and text; the file appears whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint}
        with atomic_path(self.path) as temporary:
            torch.save({**content, "state": state}, temporary)

    def read(self) -> dict[str, Any] | None:
        """Return the state on the CPU; None where there is no file.

        Raises
        ------
        CheckpointError
            Where the file is not whole, or was written by a training of something else.
        """
        if not self.path.exists():
            return None
        content = self._load()
        if content["version"] != VERSION:
            raise CheckpointError(
                f"{self.path} has format version {content['version']}, this library reads "
                f"{VERSION}. {CURE}"
            )
        self._check_same(content["fingerprint"])
        state: dict[str, Any] = content["state"]
        return state

    def remove(self) -> None:
        """Delete the file if it is there: the training is complete."""
        self.path.unlink(missing_ok=True)

    def _load(self) -> dict[str, Any]:
        try:
            # torch reads past a wrong checksum.
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            content: Any = torch.load(self.path, map_location="cpu", weights_only=True)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise LookupError("it holds something else")
        except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, LookupError) as err:
            raise CheckpointError(
                f"{self.path} is no checkpoint of a fit, or is damaged. {CURE}"
            ) from err
        return content

    def _check_same(self, other: dict[str, str]) -> None:
        names = sorted(self.fingerprint.keys() | other.keys())
        pairs = {name: (other.get(name), self.fingerprint.get(name)) for name in names}
        differing = [
            f"`{name}` has other readings" if name == "y" else f"`{name}` was {was} and is {now}"
            for name, (was, now) in pairs.items()
            if was != now
        ]
        if differing:
            raise CheckpointError(
                f"{self.path} is the checkpoint of another fit: {', '.join(differing)}. {CURE}"
            )


def fingerprint(
    params: Mapping[str, Any], *, readings: Iterable[NDArray[np.float64]]
) -> dict[str, str]:
    """Return parameters as text, and a digest of the readings under the name `y`.

    Parameters
    ----------
    params : mapping
        Numbers, text, None and sequences of them, of Python or numpy.
    readings : iterable of array
        What is trained on, NaN where missing.

    Returns
    -------
    dict of str
        Equal for equal parameters and readings.
    """
    texts = {name: json.dumps(value, default=_from_numpy) for name, value in params.items()}
    digest = hashlib.sha256()
    for values in readings:
        # NaN comes with either sign.
        unsigned = np.where(np.isnan(values), np.nan, values)
        digest.update(repr(values.shape).encode() + unsigned.tobytes())
    return {**texts, "y": digest.hexdigest()}


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"A parameter of type {type(value).__name__} has no text form.")
