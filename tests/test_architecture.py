"""The map of DESIGN: who may import whom, held by reading the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xlstm_ts

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "export", "datasets")
PACKAGES = ("anomaly", "streaming", "cli", "parquet")
LEAVES = {"xlstm_ts.exceptions", "xlstm_ts.checks", "xlstm_ts.columns"}
MODEL = {f"xlstm_ts.{name}" for name in (
    "config", "state", "scaling", "cells", "blocks", "covariates", "future", "patches", "phases",
    "readings", "head", "model",
)}  # fmt: skip
OPS = {"xlstm_ts.kernels.ops", "xlstm_ts.kernels.states"}
HEAVY = {
    "torch", "pandas", "sklearn", "scipy", "onnx", "onnxruntime", "triton", "matplotlib", "sktime",
    "lightning_fabric", "pyarrow", "pyspark", "ray",
}  # fmt: skip

# Module or room: what of the package it may import, and which heavy packages.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "xlstm_ts.exceptions": (set(), set()),
    "xlstm_ts.checks": (set(), set()),
    "xlstm_ts.columns": (set(), set()),
    "xlstm_ts.calendars": (set(), set()),
    "xlstm_ts.files": ({"xlstm_ts.exceptions"}, set()),
    "xlstm_ts.kernels": ({"xlstm_ts.kernels"}, {"torch", "triton"}),
    "xlstm_ts.datasets": ({"xlstm_ts.datasets"}, {"pandas"}),
    "xlstm_ts.config": (set(), set()),
    "xlstm_ts.state": (set(), {"torch"}),
    "xlstm_ts.scaling": (set(), {"torch"}),
    "xlstm_ts.cells": (MODEL | OPS, {"torch"}),
    "xlstm_ts.blocks": (MODEL, {"torch"}),
    "xlstm_ts.covariates": (MODEL, {"torch"}),
    "xlstm_ts.future": (MODEL, {"torch"}),
    "xlstm_ts.patches": (MODEL, {"torch"}),
    "xlstm_ts.phases": (MODEL, {"torch"}),
    "xlstm_ts.readings": (MODEL, {"torch"}),
    "xlstm_ts.head": (MODEL, {"torch"}),
    "xlstm_ts.model": (MODEL, {"torch"}),
    "xlstm_ts.losses": (set(), {"torch"}),
    "xlstm_ts.windows": (set(), {"torch"}),
    "xlstm_ts.pools": ({"xlstm_ts.windows"}, {"torch"}),
    "xlstm_ts.checkpoints": ({"xlstm_ts.files"}, {"torch"}),
    "xlstm_ts.carrying": (
        {"xlstm_ts.model", "xlstm_ts.state", "xlstm_ts.windows"}, {"torch"},
    ),
    "xlstm_ts.distribution": (
        {"xlstm_ts.compute", "xlstm_ts.model"}, {"torch", "lightning_fabric"},
    ),
    "xlstm_ts.runs": (
        {f"xlstm_ts.{name}" for name in ("carrying", "distribution", "model")}, {"torch"},
    ),
    "xlstm_ts.validation": (
        {
            f"xlstm_ts.{name}"
            for name in ("distribution", "losses", "model", "pools", "runs", "windows")
        },
        {"torch"},
    ),
    "xlstm_ts.training": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "carrying", "checkpoints", "distribution", "losses", "model", "pools", "runs",
                "state", "validation", "windows",
            )
        },
        {"torch"},
    ),
    "xlstm_ts.compute": (set(), {"torch", "sklearn"}),
    "xlstm_ts.advice": (set(), {"pandas"}),
    "xlstm_ts.steps": ({"xlstm_ts.advice"}, {"pandas"}),
    "xlstm_ts.keys": (set(), {"pandas"}),
    "xlstm_ts.panels": ({"xlstm_ts.steps"}, {"pandas"}),
    "xlstm_ts.frames": (
        {f"xlstm_ts.{name}" for name in ("advice", "keys", "panels", "steps")},
        {"pandas"},
    ),
    "xlstm_ts.exogenous": (
        {
            f"xlstm_ts.{name}"
            for name in ("calendars", "frames", "panels", "statics", "steps", "units")
        },
        {"pandas"},
    ),
    "xlstm_ts.statics": ({"xlstm_ts.panels"}, {"pandas"}),
    "xlstm_ts.transforms": ({"xlstm_ts.config", "xlstm_ts.panels"}, set()),
    "xlstm_ts.units": (
        {"xlstm_ts.config", "xlstm_ts.panels", "xlstm_ts.transforms"}, set(),
    ),
    "xlstm_ts.calibration": ({"xlstm_ts.panels"}, set()),
    "xlstm_ts.seasons": ({"xlstm_ts.panels", "xlstm_ts.steps"}, {"pandas"}),
    "xlstm_ts.evaluation": (
        {f"xlstm_ts.{name}" for name in ("config", "model", "panels", "transforms", "units")},
        {"torch", "pandas"},
    ),
    "xlstm_ts.metrics": (set(), {"sklearn"}),
    "xlstm_ts.origins": ({"xlstm_ts.panels", "xlstm_ts.seasons"}, {"pandas"}),
    "xlstm_ts.results": ({"xlstm_ts.panels", "xlstm_ts.metrics"}, {"pandas"}),
    "xlstm_ts.backtesting": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "evaluation", "exogenous", "frames", "metrics", "origins", "panels", "results",
                "prediction", "statics", "transforms",
            )
        },
        {"pandas", "sklearn"},
    ),
    "xlstm_ts.tables": ({"xlstm_ts.unix"}, {"pandas"}),
    "xlstm_ts.axes": ({"xlstm_ts.steps"}, {"pandas", "matplotlib"}),
    "xlstm_ts.plotting": ({"xlstm_ts.axes", "xlstm_ts.frames"}, {"pandas", "sklearn"}),
    "xlstm_ts.diagnostics": ({"xlstm_ts.axes"}, {"pandas"}),
    "xlstm_ts.anomaly_plots": ({"xlstm_ts.axes"}, {"pandas"}),
    "xlstm_ts.residuals": ({"xlstm_ts.axes"}, {"pandas"}),
    "xlstm_ts.persistence": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "calibration", "config", "exogenous", "files", "model", "panels", "runs",
            )
        },
        {"torch", "pandas"},
    ),
    "xlstm_ts.plans": (
        {
            f"xlstm_ts.{name}"
            for name in ("checkpoints", "config", "exogenous", "panels", "seasons", "training")
        },
        set(),
    ),
    "xlstm_ts.prediction": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "calibration", "config", "evaluation", "exogenous", "frames", "model", "panels",
                "parquet.panel", "statics", "steps", "transforms",
            )
        },
        {"pandas", "sklearn"},
    ),
    "xlstm_ts.forecaster": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "persistence", "calibration", "compute", "config", "distribution", "exogenous",
                "frames", "model", "panels", "parquet.fitting", "parquet.panel", "plans",
                "prediction", "runs", "statics", "training", "transforms", "units", "windows",
            )
        },
        {"torch", "sklearn"},
    ),
    # Panels in files: only the module of files calls pyarrow, and the one that writes forecasts.
    "xlstm_ts.parquet": ({"xlstm_ts.parquet"}, set()),
    "xlstm_ts.parquet.panel": (set(), {"pandas", "pyarrow"}),
    "xlstm_ts.parquet.files": ({"xlstm_ts.panels"}, {"pyarrow"}),
    "xlstm_ts.parquet.clock": ({"xlstm_ts.steps"}, {"pandas"}),
    "xlstm_ts.parquet.index": (
        {f"xlstm_ts.{name}" for name in ("panels", "parquet.clock", "parquet.files", "pools")},
        set(),
    ),
    "xlstm_ts.parquet.scan": (
        {"xlstm_ts.frames", "xlstm_ts.panels"}
        | {f"xlstm_ts.parquet.{name}" for name in ("clock", "files", "folders", "index", "panel")},
        set(),
    ),
    "xlstm_ts.parquet.rows": (
        {
            f"xlstm_ts.{name}"
            for name in ("panels", "parquet.clock", "parquet.files", "parquet.index", "pools")
        },
        set(),
    ),
    "xlstm_ts.parquet.predicting": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "config", "evaluation", "exogenous", "files", "panels", "pools", "steps",
            )
        }
        | {f"xlstm_ts.parquet.{name}" for name in ("index", "panel", "rows", "scan")},
        {"pandas", "pyarrow", "sklearn"},
    ),
    "xlstm_ts.parquet.fitting": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "calibration", "compute", "config", "distribution", "exogenous", "model", "panels",
                "parquet", "plans", "pools", "statics", "training", "transforms", "units",
                "windows",
            )
        },
        {"torch"},
    ),
    "xlstm_ts.innovations": (
        {
            f"xlstm_ts.{name}"
            for name in ("anomaly", "forecaster", "model", "panels", "streaming.readings", "units")
        },
        {"torch", "pandas"},
    ),
    "xlstm_ts.incidents": (
        {"xlstm_ts.anomaly", "xlstm_ts.exceptions", "xlstm_ts.panels"}, {"pandas"},
    ),
    "xlstm_ts.detector_files": (
        {f"xlstm_ts.{name}" for name in ("anomaly", "files", "forecaster", "persistence")}
        | {"xlstm_ts"},
        set(),
    ),
    "xlstm_ts.detector": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "anomaly", "config", "detector_files", "forecaster", "frames", "incidents",
                "innovations", "panels", "steps",
            )
        }
        | {"xlstm_ts"},
        {"pandas", "sklearn"},
    ),
    "xlstm_ts.regressor": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "compute", "config", "model", "panels", "plans", "runs", "scaling", "training",
                "units", "windows",
            )
        },
        {"torch", "pandas", "sklearn"},
    ),
    "xlstm_ts.sktime": (
        {f"xlstm_ts.{name}" for name in ("forecaster", "frames", "panels", "steps", "transforms")},
        {"pandas", "sktime"},
    ),
    "xlstm_ts.anomaly": ({"xlstm_ts.anomaly"}, set()),
    # The runtime of streams, and what of the command line runs them, know neither torch nor pandas.
    "xlstm_ts.streaming": (
        {
            f"xlstm_ts.{name}"
            for name in ("anomaly", "streaming", "calendars", "export.contract", "files")
        },
        {"onnxruntime"},
    ),
    # What engines run in their workers, likewise but for pandas.
    "xlstm_ts.shards": ({"xlstm_ts.streaming"}, {"pandas"}),
    "xlstm_ts.spark_columns": (
        {"xlstm_ts.export.contract", "xlstm_ts.shards"}, {"pyspark"},
    ),
    "xlstm_ts.spark": (
        {f"xlstm_ts.{name}" for name in ("shards", "spark_columns", "streaming")},
        {"pandas", "pyspark"},
    ),
    "xlstm_ts.cli": (
        {f"xlstm_ts.{name}" for name in ("cli", "export.contract", "streaming")} | {"xlstm_ts"},
        set(),
    ),
    "xlstm_ts.cli.verdicts": (
        {f"xlstm_ts.{name}" for name in ("anomaly", "cli.writers", "streaming")}, set(),
    ),
    "xlstm_ts.cli.tables": ({"xlstm_ts.cli.dates", "xlstm_ts.cli.unix"}, {"pandas"}),
    "xlstm_ts.cli.modelling": (
        {
            f"xlstm_ts.{name}"
            for name in ("cli.tables", "cli.wording", "export.onnx", "files", "forecaster")
        },
        {"pandas"},
    ),
    "xlstm_ts.export.contract": ({"xlstm_ts.config"}, set()),
    "xlstm_ts.export.builder": (set(), {"onnx"}),
    "xlstm_ts.export.fold": (MODEL, {"torch"}),
    "xlstm_ts.export.columns": (
        MODEL | {f"xlstm_ts.export.{name}" for name in ("builder", "contract", "fold")},
        set(),
    ),
    "xlstm_ts.export.graph": (
        MODEL
        | {
            f"xlstm_ts.export.{name}"
            for name in ("builder", "columns", "contract", "fold", "head")
        },
        {"onnx", "torch"},
    ),
    "xlstm_ts.export.head": (
        MODEL | {f"xlstm_ts.export.{name}" for name in ("builder", "columns", "fold")}, {"torch"},
    ),
    "xlstm_ts.export.chunk_scaling": (MODEL | {"xlstm_ts.export.builder"}, set()),
    "xlstm_ts.export.chunk_cells": (
        MODEL | {f"xlstm_ts.export.{name}" for name in ("builder", "chunk_scaling", "fold")},
        set(),
    ),
    "xlstm_ts.export.chunk": (
        MODEL
        | {
            f"xlstm_ts.export.{name}"
            for name in (
                "builder", "chunk_cells", "chunk_scaling", "columns", "contract", "fold", "head",
            )
        },
        {"onnx"},
    ),
    "xlstm_ts.export.parity": (
        {f"xlstm_ts.{name}" for name in ("config", "model", "streaming", "transforms")}, {"torch"},
    ),
    "xlstm_ts.export.detectors": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "anomaly", "export.contract", "export.innovations", "export.onnx", "export.parity",
                "export.scores", "files", "steps", "streaming",
            )
        },
        {"onnx", "sklearn"},
    ),
    "xlstm_ts.export.stages": (
        {f"xlstm_ts.{name}" for name in ("anomaly", "export.builder", "export.contract")}, set(),
    ),
    "xlstm_ts.export.innovations": (
        {f"xlstm_ts.{name}" for name in ("anomaly", "export.contract", "export.stages")}, set(),
    ),
    "xlstm_ts.export.tails": (
        {f"xlstm_ts.{name}" for name in ("anomaly", "export.stages")}, set(),
    ),
    "xlstm_ts.export.scores": (
        {
            f"xlstm_ts.{name}"
            for name in (
                "anomaly", "export.contract", "export.graph", "export.innovations",
                "export.stages", "export.tails",
            )
        },
        {"onnx"},
    ),
    "xlstm_ts.export.quantize": (
        {"xlstm_ts.export.contract", "xlstm_ts.export.parity", "xlstm_ts.model"}, {"onnx"},
    ),
    "xlstm_ts.export.onnx": (
        {f"xlstm_ts.{name}" for name in (
            "files", "export", "model", "panels", "prediction", "steps", "transforms", "units",
        )}
        | {"xlstm_ts"},
        {"onnx", "sklearn", "torch"},
    ),
}  # fmt: skip
UNBOUND = {"xlstm_ts", "xlstm_ts.cli.demo", "xlstm_ts.__main__"}


def modules() -> dict[str, Path]:
    found = {f"xlstm_ts.{path.stem}": path for path in (ROOT / "xlstm_ts").glob("*.py")}
    found["xlstm_ts"] = found.pop("xlstm_ts.__init__")
    for room in ROOMS:
        found |= {f"xlstm_ts.{room}.{path.stem}": path for path in (ROOT / room).glob("*.py")}
    for name in PACKAGES:
        files = {path.stem: path for path in (ROOT / "xlstm_ts" / name).glob("*.py")}
        found[f"xlstm_ts.{name}"] = files.pop("__init__")
        found |= {f"xlstm_ts.{name}.{stem}": path for stem, path in files.items()}
    return found


def imports(path: Path) -> set[str]:
    """Return what a module imports when it runs, type checking aside."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known = {f"{node.module}.{alias.name}" for alias in node.names} & modules().keys()
            names |= known or {node.module}
    return names


def within(name: str, allowed: set[str]) -> bool:
    return any(
        name == place or name.startswith(f"{place}.") for place in allowed - {"xlstm_ts"}
    ) or (name == "xlstm_ts" and "xlstm_ts" in allowed)


@pytest.mark.parametrize("name", sorted(modules().keys() - UNBOUND))
def test_only_drawn_arrows(name: str) -> None:
    place = name if name in ALLOWED else name.rpartition(".")[0]
    ours, heavy = ALLOWED[place]
    for imported in imports(modules()[name]):
        if imported.split(".")[0] == "xlstm_ts":
            assert within(imported, ours | LEAVES), f"{name} must not import {imported}"
        elif imported.split(".")[0] in HEAVY:
            assert imported.split(".")[0] in heavy, f"{name} must not import {imported}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_links_without_init(room: str) -> None:
    link = ROOT / "xlstm_ts" / room
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{room}"
    assert not (ROOT / room / "__init__.py").exists()
    assert not [path for path in (ROOT / room).iterdir() if path.is_dir() and path.name[0] != "_"]


def test_files_stay_readable() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    over = {name: n for name, n in long.items() if n > (500 if name.endswith("_jit") else 400)}
    assert over == {}


def test_public_names_load_on_use() -> None:
    displays = ["AnomalyDisplay", "BacktestDisplay", "ForecastDisplay", "ResidualsDisplay"]
    estimators = ["XLSTMAnomalyDetector", "XLSTMForecaster", "XLSTMRegressor"]
    assert xlstm_ts.__all__ == [*displays, *estimators, "__version__", "backtest"]
    for name in xlstm_ts.__all__:
        assert getattr(xlstm_ts, name) is not None
        assert f"xlstm_ts.{name}" not in modules()
    code = "import sys, xlstm_ts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys; from xlstm_ts import XLSTMForecaster; sys.exit('sktime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = xlstm_ts.nothing
