"""One call from a fitted forecaster to a verified ONNX file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from sklearn.utils.validation import check_is_fitted

import xlstm_ts
from xlstm_ts.export.graph import build_step_graph
from xlstm_ts.export.parity import Parity, check_parity
from xlstm_ts.files import atomic_path

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster


def export_onnx(forecaster: XLSTMForecaster, path: str | os.PathLike[str]) -> Parity:
    """Write the step graph of a forecaster: one raw reading in, one forecast out.

    Scaling, missing readings, the open patch and the state are in the graph; see
    `xlstm_ts.export.contract` for its inputs and outputs, `xlstm_ts.streaming` to run it.

    Parameters
    ----------
    forecaster : XLSTMForecaster
        A fitted forecaster.
    path : path-like
        The file. It appears only after the graph has been run beside the model over 2,000
        random readings and 2,000 of the forecaster's context, repeated until there are enough.

    Returns
    -------
    Parity
        The worst errors found, in scaled units.

    Raises
    ------
    ExportError
        Where graph and model differ by more than `check_parity` allows; no file is then written.
    BackendError
        Where onnxruntime is not installed.
    """
    check_is_fitted(forecaster)
    model, context = forecaster.model_, forecaster.context_
    graph = build_step_graph(
        model,
        channels=forecaster.channels_,
        step=context.step,
        library_version=xlstm_ts.__version__,
    )
    with atomic_path(Path(path)) as temporary:
        onnx.save(graph, temporary)
        return check_parity(model, temporary, readings=context.values)
