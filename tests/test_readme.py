"""The examples of the README run as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.cli import main

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


def test_anomalies_are_found_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_examples(4)
    assert len(names["events"]) == names["watch"].host.decider.machine.number + 1 > 0
    assert names["causes"]["share"].sum() == pytest.approx(1)


def test_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    hours = pd.date_range("2026-01-01", periods=700, freq="h", name="ds")
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(700) * np.pi / 12) + 0.1 * rng.normal(size=700)
    pd.DataFrame({"y": y}, hours).to_csv("data.csv")
    (block,) = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "xlstm-ts"
        assert main(arguments) == 0, capsys.readouterr().err
    assert "y in kW" in capsys.readouterr().out
    assert len(Path("forecasts.jsonl").read_text().splitlines()) == 700
    assert len(pd.read_csv("forecast.csv")) == 24
