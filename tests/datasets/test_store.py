import dataclasses
import hashlib
from pathlib import Path

import pooch
import pytest

from xlstm_ts.datasets.published import Dataset, PublishedFile
from xlstm_ts.datasets.store import locate
from xlstm_ts.exceptions import SeriesError

CONTENT = b"date,value\n2024-01-01,1.0\n"


def make_dataset(path="room/file.csv"):
    file = PublishedFile(
        path=path,
        url="https://example.invalid/file.csv",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    return Dataset(files=(file,), homepage="", licence="", citation="")


def place(folder, content=CONTENT):
    path = folder / "room" / "file.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_argument_wins_over_variable_wins_over_cache(tmp_path, monkeypatch):
    argument, variable, cache = (
        place(tmp_path / name) for name in ("argument", "variable", "cache")
    )
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setenv("XLSTM_TS_DATA", str(tmp_path / "variable"))
    assert locate(make_dataset(), data_home=tmp_path / "argument") == [argument]
    assert locate(make_dataset(), data_home=None) == [variable]
    monkeypatch.delenv("XLSTM_TS_DATA")
    assert locate(make_dataset(), data_home=None) == [cache]


@pytest.mark.parametrize("value", ["", None])
def test_empty_variable_means_cache(tmp_path, monkeypatch, value):
    path = place(tmp_path)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path)
    if value is None:
        monkeypatch.delenv("XLSTM_TS_DATA", raising=False)
    else:
        monkeypatch.setenv("XLSTM_TS_DATA", value)
    assert locate(make_dataset(), data_home=None) == [path]


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = place(tmp_path)
    assert locate(make_dataset(), data_home="~") == [path]


def test_present_file_needs_no_network_and_is_not_written(tmp_path, monkeypatch, no_network):
    path = place(tmp_path)
    before = path.stat()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("wrote into the folder"))
    assert locate(make_dataset(), data_home=tmp_path) == [path]
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert no_network == []


def test_tampered_file_names_file_and_cure_and_stays(tmp_path, no_network):
    path = place(tmp_path, CONTENT + b"\n")
    with pytest.raises(SeriesError, match=r"file\.csv is not the published file.*delete it") as err:
        locate(make_dataset(), data_home=tmp_path)
    assert str(path) in str(err.value)
    assert path.read_bytes() == CONTENT + b"\n"
    assert no_network == []


def test_missing_file_without_network_names_file_and_cure(tmp_path, no_network):
    with pytest.raises(OSError, match=r"no network in tests.*XLSTM_TS_DATA") as err:
        locate(make_dataset(), data_home=tmp_path)
    assert str(tmp_path / "room" / "file.csv") in str(err.value)
    assert isinstance(err.value.__cause__, ConnectionError)
    assert no_network == ["https://example.invalid/file.csv"]


def test_made_file_is_not_downloaded_but_explained(tmp_path, no_network):
    file = PublishedFile(path="room/file.csv", url=None, sha256="0" * 64)
    made = dataclasses.replace(make_dataset(), files=(file,))
    with pytest.raises(OSError, match=r"file\.csv is missing, and is made .* notes of its loader"):
        locate(made, data_home=tmp_path)
    place(tmp_path)
    with pytest.raises(SeriesError, match="Replace it by one made anew"):
        locate(made, data_home=tmp_path)
    assert no_network == []


@pytest.mark.parametrize("content", [CONTENT, b"something else"])
def test_download_is_checked(tmp_path, monkeypatch, content):
    def choose(url, **_):
        return lambda url, output_file, _: Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.core, "choose_downloader", choose)
    path = tmp_path / "room" / "file.csv"
    if content == CONTENT:
        assert locate(make_dataset(), data_home=tmp_path) == [path]
        assert path.read_bytes() == CONTENT
    else:
        with pytest.raises(OSError, match="could not be downloaded"):
            locate(make_dataset(), data_home=tmp_path)
        assert not path.exists()
