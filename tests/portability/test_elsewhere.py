"""The examples in C, Node and a browser forecast what onnxruntime in Python does."""

import csv
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from numpy.typing import NDArray

from tests.portability.conftest import STEPS, TOLERANCE, Exported, with_score
from xlstm_ts.export.contract import METADATA_KEY
from xlstm_ts.streaming.detectors import DetectorModel

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NODE = shutil.which("node")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
COMPILER = shutil.which("cc")
LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"), None)
ONE = pytest.mark.parametrize("exported", ["mm float32"], indirect=True)


def need_package(name: str) -> None:
    if NODE is None:
        pytest.skip("no Node: install node 20 or later")
    if not (EXAMPLES / "node_modules" / name).is_dir():
        pytest.skip(f"no {name}: cd examples && npm install --ignore-scripts")


def run(*command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)


def numbers(done: subprocess.CompletedProcess[str]) -> NDArray[np.float64]:
    assert done.returncode == 0, done.stderr
    forecasts = np.array([[float(field) for field in row] for row in csv.reader(
        done.stdout.splitlines()
    )])  # fmt: skip
    assert len(forecasts) == STEPS
    return forecasts


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_node(package: str, exported: Exported) -> None:
    need_package(package)
    done = run(NODE, EXAMPLES / "node" / "stream.mjs", exported.path, exported.csv, package)
    assert exported.worst_error(numbers(done)) <= TOLERANCE


@ONE
def test_node_names_what_is_wrong(exported: Exported, tmp_path: Path) -> None:
    need_package("onnxruntime-node")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("time,load\n1,2\n")
    for model, readings, message in (
        (exported.path, wrong, "the readings need the columns load,flow"),
        (wrong, wrong, "this is not"),
    ):
        done = run(NODE, EXAMPLES / "node" / "stream.mjs", model, readings)
        assert done.returncode != 0
        assert message in done.stderr


def build(name: str, folder: Path) -> Path:
    """Return an example in C, compiled against the library of the wheel."""
    if COMPILER is None:
        pytest.skip("no C compiler: install gcc or clang")
    if LIBRARY is None:
        pytest.skip("this onnxruntime has no library for C: install the wheel for Linux")
    for link in ("libonnxruntime.so", "libonnxruntime.so.1"):
        if not (folder / link).exists():
            (folder / link).symlink_to(LIBRARY)
    header = os.environ.get("ONNXRUNTIME_INCLUDE", Path(__file__).parent / "include")
    done = run(
        COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "-isystem", header,
        EXAMPLES / "c" / f"{name}.c", "-o", folder / name,
        f"-L{folder}", "-lonnxruntime", "-lm", f"-Wl,-rpath,{folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("stream", tmp_path_factory.mktemp("c"))


def lines(readings: NDArray[np.float32]) -> str:
    rows = (",".join("" if np.isnan(x) else f"{x:.9g}" for x in row) for row in readings)
    return "\n".join(("load,flow", *rows, ""))


def test_c(program: Path, exported: Exported) -> None:
    done = run(program, exported.path, stdin=lines(exported.readings))
    assert exported.worst_error(numbers(done)) <= TOLERANCE


@ONE
def test_c_takes_channels_of_any_name(program: Path, exported: Exported, tmp_path: Path) -> None:
    graph = onnx.load(exported.path)
    text = next(one for one in graph.metadata_props if one.key == METADATA_KEY)
    text.value = text.value.replace('["load", "flow"]', '["state", "T_{in}: \\"x\\""]')
    assert "T_{in}" in text.value
    onnx.save(graph, tmp_path / "named.onnx")
    done = run(program, tmp_path / "named.onnx", stdin=lines(exported.readings))
    assert exported.worst_error(numbers(done)) <= TOLERANCE


@ONE
@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("load,flow\n1\n", "fewer fields"),
        ("load,flow\n1,2,3\n", "more fields"),
        ("load,flow\n1,two\n", "not a number"),
        ("load,flow\n1,2" + " " * 70_000 + "\n", "too long"),
        ("", "no header"),
    ],
)
def test_c_names_what_is_wrong(stdin: str, message: str, program: Path, exported: Exported) -> None:
    done = run(program, exported.path, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


@pytest.mark.parametrize("exported", ["mm float32", "ms int8"], indirect=True)
def test_browser(exported: Exported, tmp_path: Path) -> None:
    for package in ("onnxruntime-web", "playwright-core"):
        need_package(package)
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's chromium-headless-shell, or name it in CHROMIUM")
    judging, lacking, text = (tmp_path / name for name in ("judging.onnx", "lacking.csv", "a.txt"))
    with_score(exported.path, judging)
    lacking.write_text("time,load\n1,2\n")
    text.write_text("no model")
    tasks = [
        (exported.path, exported.csv), (judging, exported.csv), (exported.path, lacking),
        (text, exported.csv),
    ]  # fmt: skip
    pictures = os.environ.get("XLSTM_TS_PICTURES", "")
    done = run(
        NODE, Path(__file__).with_name("browser.mjs"), CHROMIUM,
        json.dumps([[str(path) for path in task] for task in tasks]), pictures,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain, judged, *refused = json.loads(done.stdout)
    for shown in (plain, judged):
        last = np.stack([shown["forecast"][channel] for channel in ("load", "flow")], 1)
        assert exported.worst_error(last[None]) <= TOLERANCE
        assert shown["status"] == "All readings seen."
        assert {"flow (m³/h)", "from now, in hours"} < set(shown["labels"])
        assert "80 % of what comes" in shown["caption"]
        assert {name for name, length in shown["drawn"] if length > 50} == {"band", "seen", "point"}
    assert (plain["score"], judged["score"]) == (False, True)
    assert "lacks the column flow" in refused[0]["error"]
    assert "a.txt is not an ONNX file" in refused[1]["error"]
    for shown in (plain, judged, *refused):
        assert (shown["foreign"], shown["sent"], shown["problems"]) == ([], [], [])


def test_stages_of_a_detector_give_the_golden_vectors() -> None:
    if NODE is None:
        pytest.skip("no Node: install node 20 or later")
    path = ROOT / "tests" / "anomaly" / "golden.json.gz"
    done = run(NODE, Path(__file__).with_name("golden.mjs"), path)
    assert done.returncode == 0, done.stderr
    given, golden = json.loads(done.stdout), json.loads(gzip.decompress(path.read_bytes()))
    for name in ("scores", "range_scores", "slow_scores", "contributions"):
        assert np.abs(np.subtract(given[name], golden[name])).max() < 1e-6, name
    assert given["statuses"] == golden["statuses"]
    assert given["events"] == golden["events"]


def test_browser_watches_with_a_detector(
    detector_path: Path, sine: pd.DataFrame, tmp_path: Path
) -> None:
    for package in ("onnxruntime-web", "playwright-core"):
        need_package(package)
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's chromium-headless-shell, or name it in CHROMIUM")
    readings = sine.round(3)
    readings.iloc[500:505, 0] += 60
    table = tmp_path / "readings.csv"
    readings.to_csv(table)
    stream = DetectorModel(detector_path).create_stream()
    verdicts = [stream.step(reading) for reading in readings.to_numpy()]
    events = {one.event.number: one.event for one in verdicts if one.event is not None}
    done = run(
        NODE, Path(__file__).with_name("browser.mjs"), CHROMIUM,
        json.dumps([[str(detector_path), str(table)]]), os.environ.get("XLSTM_TS_PICTURES", ""),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)
    assert (shown["error"], shown["foreign"], shown["sent"], shown["problems"]) == ("", [], [], [])
    rows = [(int(row[0]) - 1, int(row[1]) - 1, row[2], float(row[3])) for row in shown["rows"]]
    assert len(rows) == len(events) > 0
    for (start, end, kind, peak), event in zip(rows, events.values(), strict=True):
        assert (start, end, kind) == (event.start, event.end, event.kind.replace("_", " "))
        assert peak == pytest.approx(event.peak, abs=1e-3)
    score = float(shown["caption"].split("Score ")[1].split(",")[0])
    assert score == pytest.approx(verdicts[-1].score, abs=2e-3)
    assert (shown["score"], shown["shaded"] > 0) == (True, True)
    assert {name for name, length in shown["drawn"] if length > 50} == {"band", "seen"}
