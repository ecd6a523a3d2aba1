"""The pages of the docs: their code runs, and each of them can be found."""

import re
from pathlib import Path

import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector, XLSTMForecaster

DOCS = Path(__file__).parents[1] / "docs"
ELSEWHERE = {"scaling.md"}  # needs Spark: tests/test_spark.py runs what it shows
PAGES = sorted(
    page.name
    for page in DOCS.glob("*.md")
    if "```python" in page.read_text() and page.name not in ELSEWHERE
)


@pytest.mark.parametrize("name", PAGES)
def test_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for estimator in (XLSTMForecaster, XLSTMAnomalyDetector):  # whether it runs, not how well
        assert "max_steps" in estimator.__init__.__kwdefaults__
        monkeypatch.setitem(estimator.__init__.__kwdefaults__, "max_steps", 20)
    if name == "parquet.md":
        pytest.importorskip("pyarrow", reason="pip install 'xlstm-ts[parquet]'")
        write_panel(tmp_path / "data")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL):
        exec(compile(block, name, "exec"), names)


def test_every_page_is_in_the_menu() -> None:
    menu = set(re.findall(r"[\w-]+\.md", (DOCS.parent / "mkdocs.yml").read_text()))
    assert menu == {page.name for page in DOCS.glob("*.md")}


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (DOCS / target).exists(), f"{page.name}: {target}"


def write_panel(folder: Path) -> None:
    """Write what the page about Parquet takes for granted."""
    folder.mkdir()
    times = pd.date_range("2026-01-01", periods=700, freq="h")
    parts = [
        pd.DataFrame({"sensor": name, "time": times, "kw": times.hour + float(number)})
        for number, name in enumerate(("north", "south"))
    ]
    pd.concat(parts).to_parquet(folder / "2026.parquet", index=False)
