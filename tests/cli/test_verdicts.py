"""The command `stream` with a detector: verdicts in place of forecasts."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.cli import main
from xlstm_ts.cli.verdicts import json_verdicts
from xlstm_ts.streaming.detector_pool import DetectorPool
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.serving import Reading
from xlstm_ts.streaming.watching import Judged

JUMP = 300


@pytest.fixture(scope="session")
def watched(sine: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV of two pumps, one of which jumps for four hours."""
    path = tmp_path_factory.mktemp("watched") / "readings.csv"
    rows = ["time,pump,a,b"]
    for hour, (a, b) in enumerate(sine.round(3).iloc[:400].to_numpy()):
        for pump in "pq":
            far = 60 * (pump == "q" and JUMP <= hour < JUMP + 4)
            cells = ["" if np.isnan(value) else f"{value + far:.3f}" for value in (a, b)]
            rows.append(",".join([str(sine.index[hour]), pump, *cells]))
    path.write_text("\n".join(rows) + "\n")
    return path


def stream(*options: object) -> int:
    return main(["stream", *map(str, options)])


def rows_of(path: Path) -> list[dict[str, str]]:
    return [*csv.DictReader(path.read_text().splitlines())]


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_verdicts_are_those_of_a_pool(
    detector_path: Path, watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert stream(detector_path, watched, "--key", "pump", "-o", out) == 0
    written = records(out)
    model = DetectorModel(detector_path)
    pool, write = DetectorPool(model), json_verdicts(model.channels)
    rows = rows_of(watched)
    for first in range(0, len(rows), 2):  # both pumps of an hour come in one call, as in the stream
        pair = rows[first : first + 2]
        given = {
            row["pump"]: [float(row[name]) if row[name] else np.nan for name in "ab"]
            for row in pair
        }
        verdicts = pool.step(given, time=pair[0]["time"])
        for line, row in enumerate(pair, start=first + 2):
            reading = Reading(row["pump"], given[row["pump"]], shown=row["time"])
            told = write(Judged(reading, verdicts[row["pump"]]), line)
            assert json.loads(told) == written[line - 2]
    alarms = [one for one in written if one["alarm"]]
    said = capsys.readouterr().err
    assert f"readings 800, streams 2, with an alert {len(alarms)}" in said
    jumped = next(one for one in alarms if one["key"] == "q" and one["time"].endswith("12:00:00"))
    assert jumped["status"] == "alarm"
    assert jumped["score"] > 3
    assert jumped["event"]["is_open"]
    assert jumped["event"]["kind"] in ("spike", "deviation", "level_shift")
    assert sum(jumped["channels"].values()) == pytest.approx(1, abs=1e-4)
    assert out.read_text().count("NaN") == 0


def test_only_alerts_as_csv(detector_path: Path, watched: Path, tmp_path: Path) -> None:
    out = tmp_path / "alerts.csv"
    options = ["--output-format", "csv", "--only-alerts", "-o", out]
    assert stream(detector_path, watched, "--key", "pump", *options) == 0
    rows = rows_of(out)
    assert rows
    assert {row["alarm"] for row in rows} == {"1"}
    of_jump = [row for row in rows if row["key"] == "q" and row["time"] >= "2024-01-13 12"]
    assert int(of_jump[0]["line"]) == 2 + 2 * JUMP + 1
    assert of_jump[0]["channel"] in ("a", "b")
    assert of_jump[0]["event"]


def test_a_watch_goes_on_where_it_was(detector_path: Path, watched: Path, tmp_path: Path) -> None:
    whole, parts, state = tmp_path / "whole", tmp_path / "parts", tmp_path / "state"
    half = tmp_path / "half.csv"
    half.write_text("".join(watched.read_text().splitlines(keepends=True)[:501]))
    keyed = ["--key", "pump", "--expire-after", "2d"]
    assert stream(detector_path, watched, *keyed, "-o", whole) == 0
    for given in (half, watched):
        assert stream(detector_path, given, *keyed, "-o", parts, "--snapshot", state) == 0
    assert parts.read_bytes() == whole.read_bytes()


def test_one_stream_and_its_gaps(
    detector_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(
        '{"a": 50, "b": 3, "time": "2024-03-01T00:00"}\n'
        '{"a": 50, "b": 3, "time": "2024-03-01T04:00"}\n'
        '{"a": 50, "b": 3, "time": "2024-03-01T04:00"}\n'
    )
    assert stream(detector_path, path) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["status"] for line in said.out.splitlines()] == ["warm-up"] * 2
    assert "left-out stamps filled 3, unusable lines 1" in said.err
    assert "line 3: " in said.err
    assert "Key" not in said.err


def test_what_a_detector_does_not_look_at_is_refused(
    detector_path: Path, graph_path: Path, watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--alert-outside", "1"], ["--static", "site=north"]):
        assert stream(detector_path, watched, *options) == 2
        assert "A detector alarms by the budget" in capsys.readouterr().err
    assert stream(detector_path, watched, "--expire-after", "2d") == 2
    assert "nothing names them" in capsys.readouterr().err
    assert stream(graph_path, watched, "--only-alerts") == 2
    assert "--only-alerts needs a rule" in capsys.readouterr().err


def test_inspect_tells_the_budget(detector_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(detector_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["warm_up"]) == ("detector", 100)
    assert facts["alarms_per_day"] == pytest.approx(0.1)
    assert facts["example"] == {"a": 0.5, "b": 0.5}
    assert main(["inspect", str(detector_path)]) == 0
    shown = capsys.readouterr().out
    assert "0.1 readings a day" in shown
    assert "the first 100 readings are not judged" in shown
