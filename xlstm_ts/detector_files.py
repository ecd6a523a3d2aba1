"""A fitted detector in one file: numpy arrays and one JSON text, never a pickle."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlstm_ts import persistence
from xlstm_ts.anomaly.host import restored_host
from xlstm_ts.files import atomic_path
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.persistence import DETECTOR

if TYPE_CHECKING:
    from xlstm_ts.detector import XLSTMAnomalyDetector

VERSION = 3


def save(path: Path, detector: XLSTMAnomalyDetector) -> None:
    """Write a fitted detector; the file appears whole or not at all."""
    params = detector.get_params()
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = None  # a generator has no text form, and training is over
    header = {
        "format": DETECTOR,
        "version": VERSION,
        "params": params,
        "alpha": detector.alpha_,
        "config": vars(detector.host_.config),
        "known": persistence.describe_panel(detector.known_),
    }
    state = detector.host_.state_dict().items()
    arrays: dict[str, Any] = {f"host/{name}": array for name, array in state}
    if detector.forecaster_ is not None:
        arrays["forecaster"] = _packed(detector.forecaster_)
    text = json.dumps(header, default=persistence.from_numpy)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, header=np.array(text), known=detector.known_.longest.values, **arrays)


def load(path: Path, detector: XLSTMAnomalyDetector) -> None:
    """Fill an unfitted detector with what `save` wrote.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    SeriesError
        Where the file is not one that `save` wrote, or is of a later version.
    """
    header, arrays = persistence.read_file(path, form=DETECTOR, version=VERSION)
    with persistence.saved(path, form=DETECTOR):
        _restore(detector, header, arrays)


def _restore(
    detector: XLSTMAnomalyDetector, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    detector.set_params(**header["params"])
    known = arrays.pop("known")
    beside = {"covariates": np.empty((len(known), 0)), "static": np.empty((1, 0))}
    detector.known_ = persistence.restore_panel(header["known"], {"context": known, **beside})
    detector.channels_ = detector.known_.channels
    detector.forecaster_ = _unpacked(arrays.pop("forecaster", None))
    detector.host_ = restored_host(
        header["config"],
        {name.removeprefix("host/"): array for name, array in arrays.items()},
        alpha=header["alpha"],
    )
    detector.alpha_, detector.offset_ = header["alpha"], math.log10(header["alpha"])


def _packed(forecaster: XLSTMForecaster) -> NDArray[np.uint8]:
    """Return the file of a forecaster as an array of bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forecaster"
        forecaster.save(path)
        return np.frombuffer(path.read_bytes(), np.uint8)


def _unpacked(packed: NDArray[np.uint8] | None) -> XLSTMForecaster | None:
    if packed is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forecaster"
        path.write_bytes(packed.tobytes())
        return XLSTMForecaster.load(path)
