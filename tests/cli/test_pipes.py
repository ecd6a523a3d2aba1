"""A stream that is killed, stopped or cut off goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.cli import main
from xlstm_ts.streaming import StreamModel, StreamPool

ROWS = 3000


@pytest.fixture(scope="session")
def readings(sine: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of JSON lines of three interleaved keys."""
    path = tmp_path_factory.mktemp("readings") / "readings.jsonl"
    rng = np.random.default_rng(0)
    records = []
    for row in range(ROWS):
        values = sine.to_numpy()[row % len(sine)] + rng.normal(size=2)
        numbers = [None if np.isnan(value) else round(float(value), 3) for value in values]
        records.append({"id": f"pump {rng.integers(3)}", "a": numbers[0], "b": numbers[1]})
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def command(*options: object) -> list[str]:
    return [sys.executable, "-m", "xlstm_ts", "stream", *map(str, options)]


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.005)


def test_forecasts_are_those_of_a_pool(graph_path: Path, readings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["stream", str(graph_path), str(readings), "--key", "id", "-o", str(out)]) == 0
    pool = StreamPool(StreamModel(graph_path))
    given = [json.loads(line) for line in readings.read_text().splitlines()]
    written = records(out)
    assert [record["line"] for record in written] == list(range(1, ROWS + 1))
    for record, found in zip(given[:200], written, strict=False):
        values = [np.nan if record[name] is None else record[name] for name in "ab"]
        output = pool.step({record["id"]: values})[record["id"]]
        assert found["key"] == record["id"]
        for place, channel in enumerate("ab"):
            forecast = found["forecast"][channel]
            quantiles = np.array([*forecast["quantiles"].values()], float).T
            np.testing.assert_allclose(quantiles, output.quantiles[:, place], rtol=1e-5)
            assert forecast["point"] == forecast["quantiles"]["0.5"]


@pytest.mark.parametrize("key", [[], ["--key", "id"]])
def test_killed_and_started_again(
    key: list[str], graph_path: Path, readings: Path, tmp_path: Path
) -> None:
    whole, out, state = (tmp_path / name for name in ("whole", "out", "state"))
    options = [graph_path, readings, *key, "--alert-outside", 0.1]
    main(["stream", *map(str, options), "-o", str(whole)])
    saving = [*options, "-o", out, "--snapshot", state, "--snapshot-every", 100]
    for _ in range(2):
        state_before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command(*saving), stderr=subprocess.DEVNULL)
        wait_for(state)
        while process.poll() is None and state.stat().st_mtime_ns == state_before:
            time.sleep(0.002)
        process.kill()
        process.wait()
    with out.open("ab") as file:
        file.write(b'{"half a li')  # what a kill may leave
    assert subprocess.run(command(*saving), stderr=subprocess.DEVNULL).returncode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert main(["stream", *map(str, saving)]) == 0  # all was read
    assert out.read_bytes() == whole.read_bytes()
    assert any(record["alerts"] for record in records(whole))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_ends_a_stream_that_waits(
    number: int, code: int, graph_path: Path, readings: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    lines = readings.read_bytes().splitlines(keepends=True)
    options = command(graph_path, "--key", "id", "--snapshot", state)
    process = subprocess.Popen(
        options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.writelines(lines[:10])
    process.stdin.flush()
    first = [process.stdout.readline() for _ in range(10)]  # though the pipe stays open
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in said
    assert said.endswith(b"readings 10, streams 3\n")
    rest = subprocess.run(options, input=b"".join(lines[:20]), capture_output=True).stdout
    once = subprocess.run(
        command(graph_path, "--key", "id"), input=b"".join(lines[:20]), capture_output=True
    ).stdout
    numbers = [json.loads(line)["line"] for line in [*first, *rest.splitlines()]]
    assert numbers == list(range(1, 21))
    assert len(once.splitlines()) == 20
    # What came next, and is not given again from its start.
    live = subprocess.run([*options, "--live"], input=b"".join(lines[20:22]), capture_output=True)
    assert [json.loads(line)["line"] for line in live.stdout.splitlines()] == [1, 2]


def test_reader_that_goes_ends_a_stream(graph_path: Path, readings: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    saving = command(graph_path, readings, "--snapshot", state, "--snapshot-every", 100)
    with subprocess.Popen(saving, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert b"Traceback" not in said
    assert b"BrokenPipe" not in said


def test_unusable_lines_are_reported_and_left_out(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"a": 1, "b": 2, "id": "x", "time": "2026-01-31T12:00"}\n'
        "garbage\n"
        "\n"
        '{"a": 1, "b": 2, "id": "y", "time": "2026-01-31T12:00"}\n'
        '{"a": 1, "b": 2, "id": "x", "time": "2026-01-31T11:00"}\n'
        '{"a": 1e300, "b": 2, "id": "y", "time": "2026-01-31T13:00"}\n'
        '{"a": 1, "b": 2, "id": "x", "time": "2026-01-31T13:00"}'
    )
    options = ["stream", str(graph_path), str(data), "--key", "id", "--output-format", "csv"]
    assert main(options) == 0
    shown = capsys.readouterr()
    assert {line.split(",")[0] for line in shown.out.splitlines()} == {"line", "1", "4", "6", "7"}
    said = [line for line in shown.err.splitlines() if line.startswith("line ")]
    assert sorted(line.split(":")[0] for line in said) == ["line 2", "line 5", "line 6"]
    assert "not JSON" in said[0]
    assert "Key 'x': `time` is 2026-01-31 11:00:00, which is not after" in said[1]
    assert "a is 1e+300, no number within float32: it is taken as missing" in said[2]
    counts = "readings 4, streams 2, unusable values taken as missing 1, unusable lines 2"
    assert shown.err.splitlines()[-1] == counts


def test_strict_ends_at_the_first_and_keeps_the_state_before(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, state = (tmp_path / name for name in ("data", "out", "state"))
    good = '{"a": 1, "b": 2}\n'
    data.write_text(good + "garbage\n" + good)
    options = ["stream", str(graph_path), str(data), "-o", str(out), "--snapshot", str(state)]
    assert main([*options, "--strict"]) == 2
    assert capsys.readouterr().err.startswith("error: line 2: It is not JSON")
    assert len(records(out)) == 1
    data.write_text(3 * good)
    assert main([*options, "--strict"]) == 0
    assert [record["line"] for record in records(out)] == [1, 2, 3]


def test_csv_in_and_out(
    graph_path: Path, sine: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sine.iloc[:600].to_csv(tmp_path / "data.csv")
    options = ["stream", str(graph_path), str(tmp_path / "data.csv"), "--output-format", "csv"]
    assert main([*options, "--alert-outside", "1"]) == 0
    shown = capsys.readouterr()
    assert "unusable" not in shown.err
    (tmp_path / "out.csv").write_text(shown.out)
    table = pd.read_csv(tmp_path / "out.csv")
    names = ["line", "time", "channel", "ahead", "forecast", "q0.1", "q0.5", "q0.9", "alert"]
    assert list(table.columns) == names
    assert len(table) == 600 * 2 * 12
    stream = StreamModel(graph_path).create_stream()
    for reading in sine.iloc[:600].to_numpy():
        output = stream.step(reading)
    last = table[(table["line"] == 601) & (table["channel"] == "b")]
    np.testing.assert_allclose(last["q0.9"], output.quantiles[:, 1, 2], rtol=1e-6)
    assert list(last["ahead"]) == list(range(1, 13))


def test_only_alerts(graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"a": 50, "b": 3}] * 5 + [{"a": 500, "b": 3}, {"a": None, "b": 3}]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = ["stream", str(graph_path), str(data), "--only-alerts"]
    assert main([*options, "--alert-outside", "5"]) == 0
    shown = capsys.readouterr()
    (found,) = map(json.loads, shown.out.splitlines())
    (alert,) = found["alerts"]
    assert (found["line"], alert["channel"], alert["value"]) == (6, "a", 500)
    assert alert["above"] < 500
    assert shown.err.endswith("readings 7, streams 1, with an alert 1\n")
    assert main(options) == 2
    assert "--only-alerts needs a rule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, out: data.write_text('{"a": 1, "b": 2}\n'), "after line 3, and the input"),
        (lambda data, out: out.write_text(""), "has 0 bytes, and the snapshot was written after"),
    ],
)
def test_what_does_not_belong_to_a_snapshot_is_refused(
    change: object,
    message: str,
    graph_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out, state = (tmp_path / name for name in ("data", "out", "state"))
    data.write_text(3 * '{"a": 1, "b": 2}\n')
    options = ["stream", str(graph_path), str(data), "-o", str(out), "--snapshot", str(state)]
    assert main(options) == 0
    change(data, out)
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_format_may_be_told(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.write_text('garbage\n{"a": 1, "b": 2}\n')
    assert main(["stream", str(graph_path), str(data)]) == 2
    assert "taken for the header of a CSV, and lacks a, b" in capsys.readouterr().err
    assert main(["stream", str(graph_path), str(data), "--input", "json"]) == 0
    assert "unusable lines 1" in capsys.readouterr().err


@pytest.mark.parametrize("duration", ["7200s", "120min", "2h", "1d"])
def test_streams_expire_by_the_times_of_their_readings(
    duration: str, graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that comes back after its time begins anew, and is held against no old band."""
    data, out = tmp_path / "readings.jsonl", tmp_path / "out.jsonl"
    told = [("back", 0), ("gone", 0), *((key, hour) for hour in (1, 2, 3) for key in "ab")]
    lines = [
        {"id": key, "time": f"2024-03-01 {hour:02d}:00", "a": 50.0, "b": 3.0}
        for key, hour in [*told, ("back", 4)]
    ]
    lines[-1] |= {"a": 1e6}
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = ["--key", "id", "--expire-after", duration, "--alert-outside", "1", "-o", str(out)]
    assert main(["stream", str(graph_path), str(data), *options]) == 0
    does_expire = duration != "1d"
    assert f"streams {3 if does_expire else 4}" in capsys.readouterr().err
    assert bool(records(out)[-1]["alerts"]) == (not does_expire)


def test_streams_that_expire_need_a_time(
    graph_path: Path, readings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--key", "id", "--expire-after", "2h", "--strict", "-o", str(tmp_path / "out")]
    assert main(["stream", str(graph_path), str(readings), *options]) == 2
    assert "line 1: `time` is missing: keys of this pool expire by it" in capsys.readouterr().err


def test_nothing_heavy_is_imported(graph_path: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text('{"a": 1, "b": 2}\n')
    heavy = "{'torch', 'pandas', 'sklearn', 'scipy', 'onnx'}"
    for arguments in (
        ["stream", str(graph_path), str(tmp_path / "data"), "-o", os.devnull],
        ["inspect", str(graph_path)],
    ):
        code = (
            f"import sys; from xlstm_ts.cli import main; code = main({arguments!r}); "
            f"sys.exit(code or ', '.join({heavy} & sys.modules.keys()) or None)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_output_is_never_written_over_what_is_read(
    graph_path: Path, readings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, link = tmp_path / "data.jsonl", tmp_path / "link"
    link.symlink_to(data)
    for pair in (
        ["stream", str(graph_path), str(data), "-o", str(data)],
        ["stream", str(graph_path), str(data), "-o", str(link)],
        ["stream", str(graph_path), "-o", str(graph_path)],
        ["stream", str(graph_path), str(data), "--snapshot", str(data)],
        ["export", str(data), "-o", str(data)],
        ["predict", str(data), "-o", f"{tmp_path}/./data.jsonl"],
        ["fit", str(data), "-o", str(data)],
    ):
        data.write_bytes(readings.read_bytes())
        assert main(pair) == 2
        assert "is a file that is read: give it another name" in capsys.readouterr().err
        assert data.read_bytes() == readings.read_bytes()
        assert graph_path.stat().st_size > 1000


def test_lines_none_of_which_can_be_used_are_an_error(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n" + 50 * "one,2,3\n")
    assert main(["stream", str(graph_path), str(data), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert len([line for line in said.splitlines() if line.startswith("line ")]) == 20
    assert "unusable lines 50 (the first 20 are shown)" in said


def test_values_that_cannot_be_used_are_missing_readings(
    graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, written = tmp_path / "data.csv", []
    for cell in ("", "broken"):
        lines = [f"{t % 7},{cell if t % 3 else t}" for t in range(30)]
        data.write_text("\n".join(("a,b", *lines)))
        assert main(["stream", str(graph_path), str(data), "-o", str(tmp_path / "out")]) == 0
        written.append((tmp_path / "out").read_bytes())
        (tmp_path / "out").unlink()
    assert written[0] == written[1]
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == 'line 3: b is "broken", no number within float32: it is taken as missing.'
    assert said[-1] == "readings 30, streams 1, unusable values taken as missing 20"
    assert (
        main(["stream", str(graph_path), str(data), "-o", str(tmp_path / "out"), "--strict"]) == 2
    )
    assert 'error: line 3: b is "broken"' in capsys.readouterr().err
    data.write_text("a,b\n" + 5 * "one,two\n")
    assert main(["stream", str(graph_path), str(data), "-o", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize("key", [[], ["--key", "id"]])
def test_stamps_that_are_left_out_are_missing_readings(
    key: list[str], graph_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alerts are those of one who is told so, by the band forecast for the reading itself."""
    hours = pd.date_range("2026-01-01", periods=60, freq="h")
    data = pd.DataFrame({"time": hours, "a": 50.0, "b": 3.0, "id": "x"})
    data["a"] += 10 * np.sin(np.arange(60) * np.pi / 12)
    away = [5, 6, *range(20, 26), 40]
    written = []
    for name in ("told", "left out"):
        table = data.drop(index=away) if name == "left out" else data.copy()
        table.loc[table.index.isin(away), ["a", "b"]] = np.nan
        table.to_csv(tmp_path / "data.csv", index=False)
        options = [str(graph_path), str(tmp_path / "data.csv"), "-o", str(tmp_path / name)]
        assert main(["stream", *options, "--alert-outside", "0.01", *key]) == 0
        of_time = {one.pop("time"): one for one in records(tmp_path / name)}
        written.append({time: {**one, "line": 0} for time, one in of_time.items()})
    given = {str(hour): written[0][str(hour)] for hour in hours.delete(away)}
    assert written[1] == given
    assert any(one["alerts"] for one in given.values())
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith("left-out stamps filled 9")
    assert "filled" not in said[-2]
