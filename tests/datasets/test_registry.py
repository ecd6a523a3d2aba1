import dataclasses
import re
from pathlib import Path, PurePosixPath

import pytest

from xlstm_ts.datasets.registry import DATASETS, PublishedFile, find_dataset

ENTRIES = [
    pytest.param(dataset, id=f"{family}-{name}")
    for family, members in DATASETS.items()
    for name, dataset in members.items()
]


@pytest.mark.parametrize("dataset", ENTRIES)
def test_entry_is_complete(dataset):
    assert dataset.files
    assert dataset.homepage.startswith("https://")
    assert dataset.licence
    assert dataset.citation
    for file in dataset.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        if file.url is not None:
            assert file.url.startswith("https://")
            assert PurePosixPath(file.url).suffix == PurePosixPath(file.path).suffix


def test_paths_and_checksums_are_one_to_one():
    files = {
        file for members in DATASETS.values() for entry in members.values() for file in entry.files
    }
    assert len({file.path for file in files}) == len({file.sha256 for file in files}) == len(files)


def test_find_dataset_lists_what_there_is():
    assert find_dataset("nab", name="nyc_taxi").freq == "30min"
    with pytest.raises(ValueError, match=r"`name` must be one of 'ETTh1', got 'etth1'"):
        find_dataset("ett", name="etth1")


def test_entries_are_frozen():
    file = PublishedFile(path="a", url="b", sha256="c")
    with pytest.raises(dataclasses.FrozenInstanceError):
        file.path = "d"
    with pytest.raises(TypeError):
        DATASETS["ett"] = {}


def test_room_has_no_init():
    assert not (Path(__file__).parents[2] / "datasets" / "__init__.py").exists()
