"""The demo runs on a user's CSV and says what is wrong with one."""

from pathlib import Path

import pandas as pd
import pytest

from xlstm_ts.cli import demo, main
from xlstm_ts.exceptions import ExportError


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
    assert "time from 'time': 2024-01-01 00:00:00 to" in printed.splitlines()[0]
    for word in ("seasonal-naive", "worst error", "median", "p99", "MAE of the streamed"):
        assert word in printed
    assert sorted(path.name for path in out.iterdir()) == ["forecast.png", "model.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "load"], "has no column 'load'; it has time, a, b"),
        (["--time", "b", "--target", "a"], "neither count readings"),
        (["--horizon", "600"], "too few for a horizon of 600"),
        (["--horizon", "0"], "--horizon must be at least 1"),
    ],
)
def test_unusable_input_is_named(
    options: list[str], message: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--data", str(csv), "--out", str(tmp_path / "out"), *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert not (tmp_path / "out").exists()


def test_failed_export_is_an_error_and_no_traceback(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ExportError("the graph disagrees")

    monkeypatch.setattr(demo, "export_onnx", fail)
    options = ["--time", "time", "--target", "b", "--steps", "1", "--out", str(tmp_path / "out")]
    assert main(["demo", "--data", str(csv), *options]) == 2
    assert "error: the graph disagrees" in capsys.readouterr().err


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--data", str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


def test_names_of_columns_need_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--target", "load"]) == 2
    assert "give it by --data" in capsys.readouterr().err


def test_last_reading_is_checked_before_the_first_step(
    sine: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xlstm_ts.cli.demo.XLSTMForecaster.fit", lambda *_: pytest.fail("fitted"))
    sine.assign(a=[*sine["a"][:-1], float("inf")]).to_csv(tmp_path / "data.csv")
    out = tmp_path / "new" / "out"
    assert main(["demo", "--data", str(tmp_path / "data.csv"), "--out", str(out)]) == 2
    assert "data.csv` column 'a' is inf at position 699" in capsys.readouterr().err
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("columns", "ratio"),
    [
        ("ab", "(mean over channels, without b, in which"),
        ("b", "none: seasonal-naive does not err"),
    ],
)
def test_channel_that_never_changes_is_not_in_the_ratio(
    columns: str, ratio: str, sine: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sine.assign(b=7.0, c="x")[[*columns, "c"]].to_csv(tmp_path / "data.csv")
    options = ["--horizon", "6", "--steps", "1", "--out", str(tmp_path)]
    assert main(["demo", "--data", str(tmp_path / "data.csv"), *options]) == 0
    printed = capsys.readouterr().out
    assert ratio in printed
    assert "inf" not in printed
    assert "left out   'c' holds 'x' in data row 1\n" in printed
