"""The data folder: find a published file, check it, download it where it is missing."""

import os
from pathlib import Path
from typing import TypeAlias

import pooch

from xlstm_ts.datasets.published import Dataset, PublishedFile
from xlstm_ts.exceptions import SeriesError

DATA_VARIABLE = "XLSTM_TS_DATA"
"""Environment variable that names the data folder."""

PathLike: TypeAlias = str | os.PathLike[str]


def locate(dataset: Dataset, *, data_home: PathLike | None) -> list[Path]:
    """Return where the files of a data set are, each with the published bytes.

    The data folder is `data_home`, else `$XLSTM_TS_DATA`, else the user's cache. A file that is
    there is only ever read: the folder may be read-only, and nothing in it is replaced.

    Parameters
    ----------
    dataset : Dataset
        The entry of the registry.
    data_home : path-like or None
        Data folder.

    Returns
    -------
    list of Path
        One path per file, in the order of `dataset.files`.

    Raises
    ------
    SeriesError
        If a file that is there is not the published one.
    OSError
        If a file is missing and cannot be downloaded.
    """
    folder = data_home or os.environ.get(DATA_VARIABLE) or pooch.os_cache("xlstm-ts")
    home = Path(folder).expanduser()
    return [_ensure(file, path=home / file.path) for file in dataset.files]


def _ensure(file: PublishedFile, *, path: Path) -> Path:
    if not path.exists():
        return _download(file, path=path)
    found = pooch.file_hash(str(path), alg="sha256")
    if found != file.sha256:
        raise SeriesError(
            f"{path} is not the published file: its sha256 is {found}, expected {file.sha256}. "
            f"Replace it by {file.url or 'one made anew'}, or delete it to have it downloaded."
        )
    return path


def _download(file: PublishedFile, *, path: Path) -> Path:
    if file.url is None:
        raise OSError(
            f"{path} is missing, and is made of what is published: the notes of its loader say "
            f"how. Place the file there, or point `data_home` or {DATA_VARIABLE} at a folder that "
            f"holds {file.path}."
        )
    try:
        pooch.retrieve(
            file.url, known_hash=f"sha256:{file.sha256}", fname=path.name, path=path.parent
        )
    except (OSError, ValueError) as err:
        raise OSError(
            f"{path} is missing and could not be downloaded from {file.url} ({err}). "
            f"Place the file there, or point `data_home` or {DATA_VARIABLE} at a folder that "
            f"holds {file.path}."
        ) from err
    return path
