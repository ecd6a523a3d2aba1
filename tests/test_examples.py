"""Examples run as far as what is installed allows."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from xlstm_ts.datasets.loaders import fetch_ett, fetch_m4
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.streaming import StreamModel

EXAMPLES = Path(__file__).parents[1] / "examples"


class StubTrial:
    """Suggest the cheap end of every range, as an Optuna trial would be asked."""

    def __init__(self) -> None:
        self.params: dict[str, object] = {}

    def suggest_categorical(self, name: str, choices: list[object]) -> object:
        return self.params.setdefault(name, choices[0])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        assert low < high
        assert not log or low > 0
        return self.params.setdefault(name, low)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        assert (high - low) % step == 0
        return self.params.setdefault(name, low)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example() -> ModuleType:
    return load("tune_with_optuna.py")


def test_objective_of_a_trial_is_a_mase(example: ModuleType) -> None:
    trial, y = StubTrial(), make_sensor_stream(700, n_faults=0, random_state=0).readings
    assert 0.1 < example.objective(trial, y) < 3
    forecaster = example.suggest(trial)
    assert trial.params == {name: getattr(forecaster, name) for name in trial.params}


def test_says_what_to_install(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit, match="pip install optuna"):
        example.main()


def test_an_actor_that_is_killed_gives_the_same_to_the_bit(graph_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'xlstm-ts[ray]', 240 MB; `make spark` does")
    options = ["--keys", "30", "--calls", "60"]
    command = [sys.executable, str(EXAMPLES / "ray_actors.py"), str(graph_path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "actor 0 died, and goes on at call 20\n" in done.stdout
    assert "difference 0\n" in done.stdout


def test_ray_example_says_what_to_install(graph_path: Path) -> None:
    code = (
        "import sys, runpy; sys.modules['ray'] = None; sys.argv[1:] = [sys.argv[2]]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    code = code.replace("sys.argv[0]", repr(str(EXAMPLES / "ray_actors.py")))
    command = [sys.executable, "-c", code, "-", str(graph_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'xlstm-ts[ray]'" in done.stderr


def test_energy_with_covariates(data_home: Path) -> None:
    example = load("energy.py")
    readings = fetch_ett("ETTh1", data_home=data_home)[: 24 * 75]
    table = example.compare(readings, steps=8)
    errors = table["MAE"].unstack(level=0)
    assert (errors.loc["XLSTMForecaster"] < 2 * errors.loc["naive"]).all()
    assert errors.loc["XLSTMForecaster", "alone"] != errors.loc["XLSTMForecaster", "with loads"]


def test_a_panel_and_a_series_that_was_never_seen(data_home: Path) -> None:
    panel = fetch_m4("Hourly", data_home=data_home)
    names = panel.train["unique_id"].unique()[:12]
    train, test = (part[part["unique_id"].isin(names)] for part in (panel.train, panel.test))
    figures = load("panel.py").run(train, test, steps=8)
    assert figures["series"] == 12
    errors = [value for name, value in figures.items() if name.startswith("sMAPE")]
    assert len(errors) == 3
    assert max(errors) < 40


def test_an_edge_bundle_holds_what_a_port_must_give(tmp_path: Path) -> None:
    example = load("edge_bundle.py")
    readings = make_sensor_stream(1200, random_state=0).readings[[*example.UNITS]]
    files = example.write_bundle(tmp_path / "bundle", readings, steps=4)
    assert files == ["golden.csv", "inspect.txt", "model.onnx"]
    golden = pd.read_csv(tmp_path / "bundle/golden.csv")
    stream = StreamModel(tmp_path / "bundle/model.onnx").create_stream()
    for row in golden.to_numpy():
        given = stream.step(row[:2]).forecast[0]
    assert given == pytest.approx(row[2:], rel=1e-5)
    assert "load_pct in %" in (tmp_path / "bundle/inspect.txt").read_text()
