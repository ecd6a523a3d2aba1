"""One call from a fitted detector to a verified ONNX file."""

from __future__ import annotations

import copy
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.records import write_record
from xlstm_ts.anomaly.stages import within
from xlstm_ts.anomaly.whitening import FARTHEST
from xlstm_ts.exceptions import ExportError
from xlstm_ts.export.contract import DETECTOR_KEY
from xlstm_ts.export.innovations import RELATION, TOO_LARGE
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.export.parity import Parity
from xlstm_ts.export.scores import beside, build_score_graph
from xlstm_ts.files import atomic_path
from xlstm_ts.steps import step_seconds
from xlstm_ts.streaming.detectors import DetectorModel
from xlstm_ts.streaming.scores import ScoreBatch, ScoreModel, Scores

if TYPE_CHECKING:
    from xlstm_ts.detector import XLSTMAnomalyDetector

TOLERANCE = 1e-4  # decades of p
CHECKED = 500  # readings


def export_detector(
    detector: XLSTMAnomalyDetector,
    path: str | os.PathLike[str],
    *,
    scores: str | os.PathLike[str] | None = None,
) -> Parity:
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
    scores : path-like, optional
        A second file, for where nothing but a runtime of ONNX is to be had: a graph that takes a
        raw reading and gives the anomaly score, the contributions of the channels, and whether one
        has left its level or is stuck (`xlstm_ts.export.scores`). Its scores are checked likewise.
        Tails are not fitted again in it, what the other channels tell is not asked, and events are
        left to whoever runs it; `xlstm_ts.streaming.scores` runs it for many streams at once.

    Returns
    -------
    Parity
        The worst errors of the graph, in scaled units.

    Raises
    ------
    ExportError
        Where the detector has no model, or graph and model differ; no file is then written.
    TypeError
        Where it is another estimator.
    ValueError
        Where both files are one.
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
    if scores is not None and Path(scores).resolve() == Path(path).resolve():
        raise ValueError(
            f"`scores` is a second file, but {os.fspath(path)} is the first: give another path."
        )
    record = write_record(detector.host_, seconds=step_seconds(detector.known_.longest.index))
    with ExitStack() as files:
        temporary = files.enter_context(atomic_path(Path(path)))
        parity = export_onnx(detector.forecaster_, temporary)
        graph = onnx.load(temporary)
        whole = None if scores is None else build_score_graph(detector.host_, graph)
        entry = graph.metadata_props.add()
        entry.key, entry.value = DETECTOR_KEY, json.dumps(record)
        onnx.save(graph, temporary)
        _check_scores(detector, temporary)
        if scores is not None and whole is not None:
            onnx.save(whole, files.enter_context(atomic_path(Path(scores))))
            _check_score_graph(whole, temporary)
    return parity


def _check_scores(detector: XLSTMAnomalyDetector, path: Path) -> None:
    """Compare scores of the file with those of the detector."""
    stream, own = DetectorModel(path).create_stream(), detector.stream()
    readings = _noise(detector.host_)
    verdicts = [(stream.step(reading), own.step(reading)) for reading in readings]
    _check_close(max(abs(ours.score - theirs.score) for ours, theirs in verdicts))


def _check_score_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Compare scores of the graph with those of the file whose stages run on the host."""
    stream = DetectorModel(path).create_stream()
    batch = ScoreModel(graph.SerializeToString()).create_batch(1)
    differences = []
    for reading in _noise(stream.host):
        score = score_beside(batch, reading, stream.host).score[0]
        differences.append(abs(score - stream.step(reading).score))
    _check_close(max(differences))


def _noise(host: AnomalyHost) -> NDArray[np.float64]:
    """Return readings `(CHECKED, C)` that wander in the units of the channels."""
    shape = (CHECKED, host.n_channels)
    noise = np.random.default_rng(0).standard_normal(shape).cumsum(0) / np.sqrt(CHECKED)
    return host.whitening.center + host.whitening.spread * noise


def _check_close(worst: float) -> None:
    if not worst <= TOLERANCE:
        raise ExportError(
            f"Scores of the graph differ from those of the detector by {worst:.1e} decades, "
            f"{TOLERANCE:.0e} is allowed. No file was written."
        )


def score_beside(batch: ScoreBatch, reading: NDArray[np.float64], host: AnomalyHost) -> Scores:
    """Score a raw reading `(C,)` by the graph, with all that a host has learnt before it.

    Parameters
    ----------
    batch : ScoreBatch
        One stream of the graph. Levels that an event has changed on the host it takes over.
    reading : ndarray of float64, shape (C,)
        NaN is missing.
    host : AnomalyHost
        The stages of a stream that has not taken the reading yet; they stay as they are.

    Returns
    -------
    Scores
        Of one stream.
    """
    given, front, state = beside(host), host.whitening, batch.state
    if RELATION in given:
        value = (reading - front.center) / front.spread
        value = within(np.where(np.abs(reading) < TOO_LARGE, value, np.nan), FARTHEST)
        given[RELATION] = copy.deepcopy(front.relation).step(value)[None]
    for name, learnt in given.items():
        batch.beside[name][:] = learnt
    for name in ("mean", "reference", "away", "since"):
        state[f"slow_{name}"] = getattr(host.scorer.slow, name)[None]
    batch.state = state
    return batch.step(reading[None])
