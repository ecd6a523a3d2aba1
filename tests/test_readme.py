"""The examples of the README run as they stand there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def run_example(number: int) -> dict[str, object]:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(examples[number], "README.md", "exec"), names)
    return names


def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_example(0)
    assert names["forecast"].shape == (24, 5)
    assert names["output"].quantiles.shape == (24, 5, 3)
    assert (tmp_path / "model.onnx").exists()


def test_covariates_are_of_use() -> None:
    names = run_example(1)
    forecast, promo = names["forecast"], names["X"]["promo"][-24:]
    assert forecast[promo].mean() > forecast[~promo].mean() + 2
