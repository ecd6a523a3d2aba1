"""`make` sets up once, again after a failure, and runs every benchmark whatever the others do."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")

# Stands for both interpreters: that of the system makes the one of the environment.
PYTHON = """#!/bin/sh
echo "$@" >> calls
case "$*" in
  *venv*) rm -rf .venv; mkdir -p .venv/bin; cp python .venv/bin/python ;;
  *broken*) exit 1 ;;
  *pip*) test ! -e no-network ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path


def make(target: str, checkout: Path) -> tuple[int, str, list[str]]:
    """Return the exit code, what was shown as an error, and the calls of Python."""
    (checkout / "calls").write_text("")
    done = subprocess.run(
        ["make", target, "PYTHON=./python"], cwd=checkout, capture_output=True, text=True
    )
    return done.returncode, done.stderr, (checkout / "calls").read_text().splitlines()


def test_failed_set_up_is_done_again_and_a_whole_one_is_not(checkout: Path) -> None:
    (checkout / "no-network").touch()
    code, _, calls = make("test", checkout)
    assert code != 0
    assert "-m pytest" not in calls
    (checkout / "no-network").unlink()
    code, _, calls = make("test", checkout)
    assert code == 0
    assert [call.split()[1] for call in calls] == ["venv", "pip", "pytest"]
    assert make("test", checkout)[2] == ["-m pytest -n auto"]


def test_every_benchmark_runs_and_failures_are_named_once(checkout: Path) -> None:
    for name in ("a_broken", "b", "c_broken", "_report"):
        (checkout / "benchmarks" / f"{name}.py").touch()
    code, shown, calls = make("bench", checkout)
    assert code != 0
    names = ("a_broken", "b", "c_broken")
    assert calls[-3:] == [f"benchmarks/{name}.py --check" for name in names]
    assert "failed: benchmarks/a_broken.py benchmarks/c_broken.py\n" in shown
    for name in ("a_broken", "c_broken"):
        (checkout / "benchmarks" / f"{name}.py").unlink()
    assert make("bench", checkout)[0] == 0
