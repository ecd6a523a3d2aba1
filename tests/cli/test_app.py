"""The commands, one after the other, and what they say where they cannot."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import __version__, training
from xlstm_ts.cli import app, main
from xlstm_ts.export.contract import VERSION
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.streaming import StreamModel

SMALL = ["--set", "d_model=16", "--set", "n_heads=2", "--context", "48", "--steps", "3"]


@pytest.fixture
def csv(sine: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    sine.to_csv(path)
    return path


@pytest.fixture(scope="session")
def model(fitted: XLSTMForecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model"
    fitted.save(path)
    return path


def test_from_a_csv_to_a_stream(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = tmp_path / "model", tmp_path / "model.onnx"
    options = ["--time", "time", "--target", "a", "--horizon", "6", "--quantiles", "0.05,0.5,0.95"]
    assert main(["fit", str(csv), *options, *SMALL, "-o", str(model)]) == 0
    printed = capsys.readouterr().out
    for words in ("700 rows of a; time from 'time'", "season     24", "context    48"):
        assert words in printed
    assert re.search(r"loss +[\d.]+ on the validation tail", printed)
    assert re.search(r"skill +-?[\d.]+ on the validation tail \(1 is perfect", printed)
    fitted = XLSTMForecaster.load(model)
    assert (fitted.horizon, fitted.quantiles, fitted.d_model) == (6, (0.05, 0.5, 0.95), 16)
    assert fitted.random_state == 0
    assert main(["export", str(model), "-o", str(graph), "--unit", "a=kW"]) == 0
    assert "worst error" in capsys.readouterr().out
    assert StreamModel(graph).contract.units == ("kW",)
    assert main(["stream", str(graph), str(csv), "--output-format", "csv"]) == 0
    assert "field 'b' is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "nothere"], "There is no file nothere."),
        (["fit", "nothere.csv", "-o", "m"], "There is no file nothere.csv."),
        (["fit", ".", "-o", "m"], ". cannot be used: Is a directory."),
    ],
)
def test_what_the_system_says_of_a_file_names_it(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_predict_of_a_graph_says_what_runs_it(
    graph_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(graph_path)]) == 2
    assert "looks like a step graph, which a stream runs" in capsys.readouterr().err


def test_predict(fitted: XLSTMForecaster, sine: pd.DataFrame, model: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out.csv", tmp_path / "data.csv"
    assert main(["predict", str(model), "--coverage", "0.8", "-o", str(out)]) == 0
    table = pd.read_csv(out, parse_dates=["time"])
    names = ["time", "channel", "forecast", "q0.1", "q0.5", "q0.9", "lower", "upper"]
    assert list(table.columns) == names
    wide = table.pivot_table(index="time", columns="channel", values="forecast")
    np.testing.assert_allclose(wide, fitted.predict(), rtol=1e-6)
    bounds = fitted.predict_interval(coverage=0.8)
    np.testing.assert_allclose(
        table.loc[table["channel"] == "b", "upper"], bounds["b", "upper"], rtol=1e-6
    )
    sine.to_csv(data)
    assert main(["predict", str(model), str(data), "-o", str(out)]) == 0
    table = pd.read_csv(out, parse_dates=["time"])
    assert table["time"].iloc[0] == sine.index[-1] + pd.Timedelta("1h")


def test_many_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = pd.date_range("2026-01-01", periods=200, freq="h")
    rows = [
        {"shop": f"00{shop}", "ds": hour, "y": (shop + 1) * np.sin(place)}
        for shop in range(2)
        for place, hour in enumerate(hours)
    ]
    data, model, graph = tmp_path / "data.csv", tmp_path / "model", tmp_path / "model.onnx"
    pd.DataFrame(rows).to_csv(data, index=False)
    options = ["--id", "shop", "--horizon", "4", "--set", "patch_length=4"]
    assert main(["fit", str(data), *options, *SMALL, "-o", str(model)]) == 0
    assert "not judged for many series" in capsys.readouterr().out
    assert main(["predict", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("series,time,channel,forecast")
    assert [line[:4] for line in lines[1:]] == ["000,"] * 4 + ["001,"] * 4
    for named in (["--id", "shop", "--time", "ds"], []):  # the model knows its columns
        assert main(["predict", str(model), str(data), *named]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == lines[1:]
    assert main(["export", str(model), "-o", str(graph)]) == 2
    assert "--series must be one of '000', '001', got None" in capsys.readouterr().err
    assert main(["export", str(model), "-o", str(graph), "--series", "001"]) == 0


@pytest.mark.parametrize(
    ("form", "options", "zone"),
    [("%Y/%m/%d %H:%M+02:00", [], "UTC+02:00"), ("%d/%m/%Y %I:%M %p", ["--time-format"], None)],
)
def test_a_stream_reads_the_times_of_the_fit(
    form: str,
    options: list[str],
    zone: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hours = pd.date_range("2026-01-10 20:00", periods=200, freq="h")
    data, model, graph = (tmp_path / name for name in ("data.csv", "model", "model.onnx"))
    table = pd.DataFrame({"ds": hours.strftime(form), "y": np.sin(np.arange(200))})
    table.drop(index=[150, 151]).to_csv(data, index=False)
    calendar = ["--calendar", "hour", "--set", "patch_length=1", *SMALL]
    assert main(["fit", str(data), "--horizon", "4", *calendar, "-o", str(model)]) == 0
    assert main(["export", str(model), "-o", str(graph)]) == 0
    assert main(["inspect", str(graph)]) == 0
    shown, aside = capsys.readouterr()
    assert shown.count("leaves out 2 stamps") == 1
    assert "Warning" not in aside
    assert ("by the clock of UTC+02:00; a time with another offset" in shown) == bool(zone)
    assert ("time from 'ds', day first" in shown) == bool(options)
    if options:
        options = [*options, form]
    assert main(["stream", str(graph), str(data), "--time", "ds", *options]) == 0
    assert "readings 198, streams 1, left-out stamps filled 2" in capsys.readouterr().err


def test_covariates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = pd.date_range("2026-01-01", periods=204, freq="h", name="ds")
    table = pd.DataFrame({"y": np.sin(np.arange(204)), "promo": 1, "visitors": 2.5}, hours)
    table.iloc[200:, [0, 2]] = np.nan
    data, model, graph = tmp_path / "data.csv", tmp_path / "model", tmp_path / "model.onnx"
    table.to_csv(data)
    named = ["--known", "promo", "--past", "visitors", "--calendar", "hour"]
    options = [*named, "--horizon", "4", "--set", "patch_length=4", *SMALL, "-o", str(model)]
    assert main(["fit", str(data), *options]) == 2
    assert "name what to forecast, by --target" in capsys.readouterr().err
    assert main(["fit", str(data), "--target", "y", *options]) == 0
    capsys.readouterr()
    assert main(["predict", str(model)]) == 2
    assert "The model needs visitors, promo as well" in capsys.readouterr().err
    assert main(["predict", str(model), str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(hour) for hour in hours[200:]]
    assert main(["export", str(model), "-o", str(graph)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(graph)]) == 0
    words = capsys.readouterr().out
    assert "visitors, promo, at the same time" in words
    assert "promo at each of the next 4 times, under 'future'" in words
    assert "needed with each reading, for hour" in words


def test_what_inspect_shows_can_be_fed(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(graph_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["channels"] == [{"name": "a", "unit": None}, {"name": "b", "unit": None}]
    assert (facts["step"], facts["horizon"], facts["quantiles"]) == ("h", 12, [0.1, 0.5, 0.9])
    state = StreamModel(graph_path).create_stream().state
    assert facts["state"]["bytes"] == sum(array.nbytes for array in state.values())
    assert facts["bytes"] == graph_path.stat().st_size
    (tmp_path / "line").write_text(json.dumps(facts["example"]))
    assert main(["stream", str(graph_path), str(tmp_path / "line"), "--strict"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(graph_path)]) == 0
    words = capsys.readouterr().out
    for line in (
        "takes      one reading at a time of a, b; null or NaN is missing",
        "step       'h' between two readings",
        "time       may be told with each reading: stamps that are left out are then filled",
        "gives      the next 12 readings at the levels 0.1, 0.5, 0.9",
        f"written by xlstm-ts {__version__}, contract {VERSION}, weights ",
    ):
        assert line in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.csv", "-o", "model"], "nowhere.csv"),
        (["fit", "{csv}", "-o", "nowhere/model"], "There is no folder nowhere"),
        (["fit", "{csv}", "-o", "m", "--set", "width=3"], "one of batch_size, blocks, "),
        (["fit", "{csv}", "-o", "m", "--set", "d_model"], "--set takes NAME=VALUE"),
        (["fit", "{csv}", "-o", "m", "--set", "d_model=x"], "`d_model` must be an integer"),
        (["fit", "{csv}", "-o", "m", "--quantiles", "low"], "--quantiles takes levels such as"),
        (["fit", "{csv}", "-o", "m", "--target", "c"], "has no column 'c'; it has time, a, b"),
        (["fit", "{csv}", "-o", "m", "--id", "a", "--time", "a"], "Column 'a' of"),
        (["export", "{model}", "-o", "m", "--unit", "a"], "--unit takes NAME=VALUE such as"),
        (["export", "{model}", "-o", "m", "--unit", "a=kW"], "one for each of a, b"),
        (["export", "nowhere", "-o", "m"], "nowhere"),
        (["export", "{model}", "-o", "m", "--series", "a"], "of one series: leave out --series"),
        (["fit", "{csv}", "-o", "m", "--horizon", "0"], "error: --horizon must be at least 1"),
        (["predict", "{model}", "--coverage", "2"], "--coverage must be"),
        (["inspect", "nowhere.onnx"], "There is no step graph 'nowhere.onnx'"),
        (["inspect", "{csv}"], "is not a step graph of xlstm-ts"),
        (["stream", "{model}", "{csv}"], "export MODEL -o model.onnx"),
        (["stream", "{graph}", "nowhere.jsonl"], "nowhere.jsonl"),
        (["stream", "{graph}", "{csv}", "--key", "id"], "lacks id; it has time, a, b"),
        (["stream", "{graph}", "{csv}", "--snapshot-every", "0"], "--snapshot-every must be at"),
        (
            ["stream", "{graph}", "{csv}", "--expire-after", "2h"],
            "nothing names them: give a --key",
        ),
        (["stream", "{graph}", "{csv}", "--expire-after", "2"], "such as 30min, 12h or 7d; got"),
        (["stream", "{graph}", "{csv}", "--expire-after", "0h"], "such as 30min, 12h or 7d; got"),
        (["stream", "{graph}", "{csv}", "--time-format", "%Q"], "--time-format takes one such as"),
        (["stream", "{graph}", "{csv}", "--static", "x=1"], "The model has no static x"),
        (["stream", "{graph}", "{csv}", "--snapshot", "{csv}"], "--snapshot "),
        (["stream", "{graph}", "{csv}", "--snapshot", "{model}"], "is no snapshot of this library"),
    ],
)
def test_unusable_input_is_named(
    arguments: list[str],
    message: str,
    csv: Path,
    model: Path,
    graph_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"csv": csv, "model": model, "graph": graph_path}
    assert main([argument.format(**files) for argument in arguments]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith("error: ")
    assert message in shown
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("arguments", [["nothing"], ["fit"], ["stream", "--horizon", "3"]])
def test_unknown_commands_and_options(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fit", "export", "predict", "stream", "inspect", "demo"])
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"  Example:\n    {'tail' if name == 'stream' else f'xlstm-ts {name}'}" in (
        capsys.readouterr().out
    )
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert f"  {name} " in shown
    assert "Exit codes: 0 done" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_interrupted_fit_is_saved(
    csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    update, calls = training._update, []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(*args, **options)

    monkeypatch.setattr(training, "_update", interrupted)
    model = tmp_path / "model"
    assert main(["fit", str(csv), *SMALL, "-o", str(model)]) == 130
    assert "warning: Interrupted after step 2 of 3" in capsys.readouterr().out
    assert XLSTMForecaster.load(model).channels_ == ("a", "b")


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xlstm_ts", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("name", ["typer", "onnxruntime", "xlstm_ts.streaming.pool"])
def test_an_early_interrupt_is_quiet(name: str, graph_path: Path) -> None:
    """An import that is cut off would show where it was, or speak of missing packages."""
    code = f"""
import os, signal, sys
from xlstm_ts.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

class Interrupts:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.exit(main(["stream", {str(graph_path)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_between_imports_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "app", interrupted)
    assert main(["--help"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_warning_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warned(*_: object, **options: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("`y` leaves out 2 stamps.", UserWarning, stacklevel=1)

    monkeypatch.setattr(app, "app", warned)
    assert main([]) == 0
    assert capsys.readouterr().err == "warning: the data leaves out 2 stamps.\n"
