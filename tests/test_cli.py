"""The demo runs on a user's CSV and says what is wrong with one."""

from pathlib import Path

import pandas as pd
import pytest

from xlstm_ts.cli import main


@pytest.fixture
def csv(sine: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    sine.to_csv(path)
    return path


def test_demo_on_a_csv(csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--time", "time", "--target", "b", "--horizon", "6", "--steps", "2"]
    assert main(["demo", "--data", str(csv), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    for word in ("seasonal-naive", "worst error", "median", "p99", "MAE of the streamed"):
        assert word in printed
    assert sorted(path.name for path in out.iterdir()) == ["forecast.png", "model.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "load"], "has no column 'load'; it has time, a, b"),
        (["--time", "b", "--target", "a"], "goes back in time|more than once|no time"),
        (["--horizon", "600"], "too few for a horizon of 600"),
    ],
)
def test_unusable_input_is_named(
    options: list[str], message: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--data", str(csv), "--out", str(tmp_path / "out"), *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert any(part in shown for part in message.split("|"))


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--data", str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv" in capsys.readouterr().err
