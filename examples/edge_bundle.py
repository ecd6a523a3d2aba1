"""Write the folder that a firmware team gets: graph, words, and readings with what must come out.

`python examples/edge_bundle.py bundle`: `model.onnx` (weights in float16), `inspect.txt`, and
`golden.csv`, raw readings with the forecast after each of them, for the test of a port.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import numpy as np
import pandas as pd

from xlstm_ts import XLSTMForecaster
from xlstm_ts.cli import main as command
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel

UNITS = {"load_pct": "%", "motor_current_A": "A"}
HORIZON, GOLDEN = 12, 500


def write_bundle(folder: Path, readings: pd.DataFrame, *, steps: int) -> list[str]:
    """Train on readings, write the bundle, and return the names of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    forecaster = XLSTMForecaster(
        HORIZON, d_model=32, context_length=240, max_steps=steps, random_state=0
    ).fit(readings[:-GOLDEN])
    model = folder / "model.onnx"
    export_onnx(forecaster, model, weights="float16", units=UNITS)
    with (folder / "inspect.txt").open("w") as file, contextlib.redirect_stdout(file):
        command(["inspect", str(model)])
    stream = StreamModel(model).create_stream()
    given = readings[-GOLDEN:].to_numpy()
    after = np.array([stream.step(reading).forecast[0] for reading in given])
    golden = pd.DataFrame(np.hstack([given, after]))
    golden.columns = [*readings.columns, *(f"next {name}" for name in readings.columns)]
    golden.to_csv(folder / "golden.csv", index=False)
    return sorted(path.name for path in folder.iterdir())


def main() -> None:
    """Write the bundle of a simulated machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=150, help="steps of the training")
    options = parser.parse_args()
    readings = make_sensor_stream(3000, random_state=0).readings[[*UNITS]]
    for name in write_bundle(options.folder, readings, steps=options.steps):
        print(f"{name}: {(options.folder / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
