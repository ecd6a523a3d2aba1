"""Examples run as far as what is installed allows."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from xlstm_ts.datasets.synthetic import make_sensor_stream

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


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "tune_with_optuna.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
