"""Check a release: what is in the wheel and the sdist, and that the wheel works by itself.

`make dist` calls it. The wheel goes into a new environment with the pinned versions; there a model
is fitted, exported and run.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRY = """
import numpy as np
import xlstm_ts
from xlstm_ts import XLSTMForecaster
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel
assert "site-packages" in xlstm_ts.__file__, xlstm_ts.__file__
y = np.sin(np.arange(400) * np.pi / 12)
forecaster = XLSTMForecaster(horizon=6, max_steps=5, random_state=0).fit(y)
export_onnx(forecaster, "model.onnx")
stream = StreamModel("model.onnx").create_stream()
assert stream.step(0.0).forecast.shape == (6, 1)
print("works:", xlstm_ts.__version__)
"""


def main(folder: Path) -> None:
    """Check the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    modules = {
        f"{room}/{path.name}" if room else f"xlstm_ts/{path.relative_to(ROOT / 'xlstm_ts')}"
        for room, paths in sources().items()
        for path in paths
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    same("the wheel", inside, modules | {"xlstm_ts/py.typed"})
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    for needed in ("README.md", "LICENSE", "pyproject.toml", "xlstm_ts/py.typed"):
        if needed not in names:
            sys.exit(f"the sdist lacks {needed}")
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / "bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", f"{wheel}[onnx]"], check=True)
        subprocess.run([python, "-c", TRY], check=True, cwd=place)


def sources() -> dict[str, list[Path]]:
    """Return the modules of each room, by where they lie in the package."""
    package = [path for path in (ROOT / "xlstm_ts").rglob("*.py") if not in_a_room(path)]
    rooms = ("kernels", "export", "datasets")
    return {"": package} | {f"xlstm_ts/{room}": [*(ROOT / room).glob("*.py")] for room in rooms}


def in_a_room(path: Path) -> bool:
    """Say whether a module is seen through the link to a room."""
    return path.relative_to(ROOT / "xlstm_ts").parts[0] in ("kernels", "export", "datasets")


def same(what: str, inside: set[str], right: set[str]) -> None:
    """End where the names in an archive are others."""
    if inside != right:
        sys.exit(f"{what} lacks {sorted(right - inside)} and has {sorted(inside - right)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
