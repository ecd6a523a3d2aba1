"""One call from a fitted detector to a verified ONNX file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.anomaly.records import write_record
from xlstm_ts.exceptions import ExportError
from xlstm_ts.export.contract import DETECTOR_KEY
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.export.parity import Parity
from xlstm_ts.files import atomic_path
from xlstm_ts.steps import step_seconds
from xlstm_ts.streaming.detectors import DetectorModel

if TYPE_CHECKING:
    from xlstm_ts.detector import XLSTMAnomalyDetector

TOLERANCE = 1e-4  # decades of p
CHECKED = 500  # readings


def export_detector(detector: XLSTMAnomalyDetector, path: str | os.PathLike[str]) -> Parity:
    """Write a detector as one file that `xlstm_ts.streaming.detectors` runs without torch.

    The graph is the step of the model of the innovations. Budget, units, weights of the online
    head, tails and limits are in the metadata under the key `xlstm_ts_detector`, as JSON.

    Parameters
    ----------
    detector : XLSTMAnomalyDetector
        A fitted one, with a model.
    path : path-like
        The file. It appears only after the graph was checked as `export_onnx` does, and its scores
        over 500 readings of noise in the units of the channels beside those of the detector.

    Returns
    -------
    Parity
        The worst errors of the graph, in scaled units.

    Raises
    ------
    ExportError
        Where the detector has no model, or graph and model differ.
    TypeError
        Where it is another estimator.
    """
    check_is_fitted(detector)
    if not hasattr(detector, "host_"):
        raise TypeError(
            f"export_detector takes an XLSTMAnomalyDetector, got {type(detector).__name__}; a "
            "forecaster goes to `export_onnx`."
        )
    if detector.forecaster_ is None:
        raise ExportError(
            "A detector with `use_model=False` has no graph to export; keep it with `save`."
        )
    record = write_record(detector.host_, seconds=step_seconds(detector.known_.longest.index))
    with atomic_path(Path(path)) as temporary:
        parity = export_onnx(detector.forecaster_, temporary)
        graph = onnx.load(temporary)
        entry = graph.metadata_props.add()
        entry.key, entry.value = DETECTOR_KEY, json.dumps(record)
        onnx.save(graph, temporary)
        _check_scores(detector, temporary)
    return parity


def _check_scores(detector: XLSTMAnomalyDetector, path: Path) -> None:
    """Compare scores of the file with those of the detector."""
    whitening = detector.host_.whitening
    shape = (CHECKED, detector.host_.n_channels)
    noise = np.random.default_rng(0).standard_normal(shape).cumsum(0) / np.sqrt(CHECKED)
    readings = whitening.center + whitening.spread * noise
    stream, own = DetectorModel(path).create_stream(), detector.stream()
    verdicts = [(stream.step(reading), own.step(reading)) for reading in readings]
    worst = max(abs(ours.score - theirs.score) for ours, theirs in verdicts)
    if not worst <= TOLERANCE:
        raise ExportError(
            f"Scores of the graph differ from those of the detector by {worst:.1e} decades, "
            f"{TOLERANCE:.0e} is allowed. No file was written."
        )
