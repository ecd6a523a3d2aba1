import os
from pathlib import Path

import pooch
import pytest

DEFAULT = Path(__file__).parents[3] / "shared" / "data"
SHARED = Path(os.environ.get("XLSTM_TS_DATA") or DEFAULT)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to download fails; the addresses tried are returned."""
    tried = []

    def refuse(url, **_):
        tried.append(url)

        def downloader(*_, **__):
            raise ConnectionError("no network in tests")

        return downloader

    monkeypatch.setattr(pooch.core, "choose_downloader", refuse)
    return tried


@pytest.fixture
def shared(monkeypatch):
    """The folder of real data, named by the environment variable."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the published files in {SHARED}")
    monkeypatch.setenv("XLSTM_TS_DATA", str(SHARED))
    return SHARED
