"""Two processes read each its own series, and train nearly what one trains.

`main` is what each of the two runs.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.parquet import ParquetPanel, files, fitting, rows

pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'xlstm-ts[parquet]'")

COUNT, LENGTH = 8, 160
OPTIONS = {
    "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
    "dropout": 0.0, "max_steps": 40, "batch_size": 9, "patience": None,
}  # fmt: skip
SMALL = 320


def panel() -> pd.DataFrame:
    wave = np.sin(np.arange(LENGTH) * np.pi / 4)
    noise = 0.3 * np.random.default_rng(0).standard_normal((COUNT, LENGTH))
    return pd.DataFrame(
        {
            "unique_id": np.repeat(list("abcdefgh"), LENGTH),
            "ds": np.tile(pd.date_range("2026-01-01", periods=LENGTH, freq="h"), COUNT),
            "y": (wave + noise).ravel(),
        }
    )


def fit(y: ParquetPanel, **options: Any) -> XLSTMForecaster:
    return XLSTMForecaster(**{"random_state": 0} | OPTIONS | options).fit(y)


def stop(record: Any) -> bool:
    return record.step == 20


def outcome(forecaster: XLSTMForecaster) -> dict[str, Any]:
    return {
        "history": [tuple(record) for record in forecaster.history_],
        "weights": forecaster.model_.state_dict(),
        "errors": torch.as_tensor(forecaster.calibration_.errors),
        "context": list(forecaster.context_.series),
    }


def watched(y: ParquetPanel) -> dict[str, Any]:
    """Fit; note which series are read while it trains, and how often a file is read whole."""
    read, train, batches = fitting.read_places, fitting.train, files.batches
    series: set[int] = set()
    scans = 0

    def note(index: Any, places: Any) -> Any:
        series.update(place.series for place in places)
        return read(index, places)

    def trained(*args: Any, **options: Any) -> Any:
        fitting.read_places = rows.read_places = note
        try:
            return train(*args, **options)
        finally:
            fitting.read_places = rows.read_places = read

    def scanned(*args: Any) -> Any:
        nonlocal scans
        scans += 1
        return batches(*args)

    scan = sys.modules["xlstm_ts.parquet.scan"]
    fitting.train, scan.batches = trained, scanned
    found = outcome(fit(y, devices=2, verbose=1))
    fitting.train, scan.batches = train, batches
    return {**found, "series": sorted(series), "scans": scans}


def main(folder: Path) -> None:
    """Fit in one of two processes, and write what came of it."""
    whole = ParquetPanel(folder / "data")
    small = ParquetPanel(folder / "data", pool_rows=SMALL)
    found: dict[str, Any] = {"whole": watched(whole), "small": watched(small)}
    found["stopped"] = outcome(
        fit(small, devices=2, checkpoint=folder / "of two.pt", callbacks=stop)
    )
    found["resumed"] = outcome(fit(small, devices=2, checkpoint=folder / "of one.pt"))
    try:
        fit(ParquetPanel(folder / "single.parquet"), devices=2)
    except SeriesError as err:
        found["error"] = str(err)
    torch.save(found, folder / f"{os.environ['RANK']}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which two processes have left what they found."""
    if importlib.util.find_spec("lightning_fabric") is None:
        pytest.skip("no lightning-fabric: pip install 'xlstm-ts[fabric]'")
    folder = tmp_path_factory.mktemp("processes")
    (folder / "data").mkdir()
    frame = panel()
    frame[: 3 * LENGTH].to_parquet(folder / "data" / "a.parquet", row_group_size=50)
    frame[3 * LENGTH :].to_parquet(folder / "data" / "b.parquet", row_group_size=50)
    frame[:LENGTH].to_parquet(folder / "single.parquet")
    fit(ParquetPanel(folder / "data", pool_rows=SMALL), checkpoint=folder / "of one.pt",
        callbacks=stop)  # fmt: skip
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--log-dir", str(folder / "log"), "--redirects", "3", __file__, str(folder)]
    paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300
    )
    logs = [path.read_text() for path in (folder / "log").rglob("stderr.log")]
    assert done.returncode == 0, "\n".join([done.stderr, *logs])
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("pool", ["whole", "small"])
def test_each_process_reads_half_of_the_series_and_one_reads_all_once(
    found: list[dict[str, Any]], pool: str
) -> None:
    one, other = (each[pool] for each in found)
    assert (one["series"], other["series"]) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert (one["scans"], other["scans"]) == (2, 0)
    assert one["history"] == other["history"]
    assert torch.equal(one["errors"], other["errors"])
    assert one["context"] == other["context"] == ["a"]
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name])


@pytest.mark.parametrize(("pool", "pool_rows"), [("whole", 2**21), ("small", SMALL)])
def test_losses_are_those_of_one_process_within_noise(
    folder: Path, found: list[dict[str, Any]], pool: str, pool_rows: int
) -> None:
    y = ParquetPanel(folder / "data", pool_rows=pool_rows)
    seeds = np.array([fit(y, random_state=seed).history_ for seed in range(3)])
    two = np.array(found[0][pool]["history"])
    assert (two[:, 0] == seeds[0, :, 0]).all()
    noise = seeds.std(0, ddof=1)
    assert (np.abs(two - seeds.mean(0))[:, 1:] < 2 * noise[:, 1:] + 1e-3).all()


def test_a_checkpoint_goes_from_one_number_of_processes_to_another(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    y = ParquetPanel(folder / "data", pool_rows=SMALL)
    whole = np.array(fit(y).history_)
    for each in found:
        history = np.array(each["resumed"]["history"])
        assert (history[:5] == whole[:5]).all()  # those before the checkpoint
        np.testing.assert_allclose(history[-1], whole[-1], rtol=0.1)
    assert not (folder / "of one.pt").exists()
    stopped = np.array(found[0]["stopped"]["history"])
    assert stopped[-1, 0] == 20
    resumed = np.array(fit(y, checkpoint=folder / "of two.pt").history_)
    assert (resumed[:5] == stopped).all()
    np.testing.assert_allclose(resumed[-1], found[0]["small"]["history"][-1], rtol=0.1)


def test_the_first_process_alone_speaks(folder: Path, found: list[dict[str, Any]]) -> None:
    (log,) = (path.parent for path in (folder / "log").rglob("0"))
    assert "40/40" in (log / "0" / "stderr.log").read_text()
    for name in ("stdout.log", "stderr.log"):
        assert (log / "1" / name).read_text() == ""


def test_fewer_series_than_processes_are_refused_in_all(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "1 series to train on are too few or too unequal for 2 processes" in each["error"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
