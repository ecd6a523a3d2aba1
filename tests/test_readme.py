"""The examples of the README run as they stand there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def run_examples(*numbers: int) -> dict[str, object]:
    """Run examples one after the other, those that go on with what is there."""
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for number in numbers:
        exec(compile(examples[number], "README.md", "exec"), names)
    return names


def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_examples(0)
    assert names["forecast"].shape == (24, 5)
    assert names["output"].quantiles.shape == (24, 5, 3)
    assert (tmp_path / "model.onnx").exists()


def test_covariates_are_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_examples(1, 2)
    promo = names["X"]["promo"][-24:].to_numpy()
    for forecast in (names["forecast"].to_numpy(), names["output"].forecast[:, 0]):
        assert forecast[promo].mean() > forecast[~promo].mean() + 2


def test_a_pool_goes_on_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_examples(0, 3)
    assert [*names["outputs"]] == [*names["pool"]] == ["line 1", ("line", 2)]
    assert names["pool"].restore("pool.snapshot") == len(names["y"])
