"""A file appears whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from xlstm_ts.files import atomic_path


def test_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("older", ["older", None])
def test_failure_leaves_what_was_there(
    error: type[BaseException], older: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    if older is not None:
        path.write_text(older)
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert [file.read_text() for file in tmp_path.iterdir()] == ([older] if older else [])


def test_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")
    with atomic_path(path) as temporary:
        temporary.write_text("newer")
    assert path.read_text() == "newer"


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_has_the_permissions_of_any_new_file(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "made"):
            pass
        now = os.umask(umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o666 & ~umask
    assert now == umask


def test_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "model.onnx"
    message = r"no folder .*nowhere to write model\.onnx"
    with pytest.raises(FileNotFoundError, match=message), atomic_path(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reused_path_is_written_over(tmp_path: Path) -> None:
    """However often a process is killed, it leaves one file at most."""
    path = tmp_path / "model.onnx"
    with atomic_path(path, is_reused=True) as temporary:
        temporary.write_text("left by one that was killed")
        left = temporary
    left.write_text("half of what was to be")
    with atomic_path(path, is_reused=True) as temporary:
        assert temporary == left
        temporary.write_text("whole")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be opened elsewhere")
def test_file_and_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, fsync = [], os.fsync

    def spy(handle: int) -> None:
        kinds.append((stat.S_ISDIR(os.fstat(handle).st_mode), (tmp_path / "made").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    with atomic_path(tmp_path / "made"):
        pass
    assert kinds == [(False, False), (True, True)]
