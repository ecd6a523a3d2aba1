"""Files that appear whole or not at all, and what is in files from elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlstm_ts.exceptions import XLSTMError


def check_folder(path: Path) -> None:
    """Refuse a path whose folder does not exist."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")


@contextmanager
def atomic_path(path: Path, *, is_reused: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes its name only if the block succeeds.

    What has its name is on the disk, name and all, and outlives a loss of power.

    Parameters
    ----------
    path : Path
        The name to take.
    is_reused : bool, default=False
        Whether the temporary path is always the same: one that a killed process left is then
        written over, and no two processes may write the same `path` at a time.

    Raises
    ------
    FileNotFoundError
        Where the folder of `path` does not exist.
    """
    check_folder(path)
    temporary = path.with_name(f".{path.name}.part") if is_reused else _fresh(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp made it private; a plain new file would have the permissions of the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _fresh(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    return Path(name)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system lets one open it (not Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def content_of(name: str, *, kind: str, error: type[XLSTMError]) -> Iterator[None]:
    """Raise one error where what is in a file cannot be used, whatever it is that goes wrong.

    Parameters
    ----------
    name : str
        How the message calls the file.
    kind : str
        What it was to be.
    error : type of XLSTMError
        What is raised.
    """
    try:
        yield
    except (XLSTMError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as err:  # a file from elsewhere can be wrong in any way
        raise error(f"{name} is not a {kind}, or is damaged: {err}") from err
