"""One call from a fitted forecaster to a verified ONNX file."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from sklearn.utils.validation import check_is_fitted

import xlstm_ts
from xlstm_ts.export.chunk import build_chunk_graph
from xlstm_ts.export.graph import build_step_graph, read_contract
from xlstm_ts.export.parity import Parity, check_parity
from xlstm_ts.export.quantize import WeightType, check_weights, write_rounded
from xlstm_ts.files import atomic_path
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import TimeSeries
from xlstm_ts.prediction import Prediction
from xlstm_ts.steps import fixed_step
from xlstm_ts.transforms import transformed
from xlstm_ts.units import find_units

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster


def export_onnx(
    forecaster: XLSTMForecaster,
    path: str | os.PathLike[str],
    *,
    series: Hashable = None,
    units: Mapping[str, str] | None = None,
    weights: WeightType = "float32",
    warm_up: str | os.PathLike[str] | None = None,
) -> Parity:
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
    series : hashable, optional
        Of a forecaster of many series: the key of the one whose units, level and spread of its
        context, the graph is to have. Streams of other series may be run with it where these are
        alike: the graph follows the level, and only readings that vary less than a tenth of the
        spread are taken as flatter than they are.
    units : mapping of str to str, optional
        The unit of each channel as people write it, such as {"load": "kW"}; whoever opens the file
        reads it there.
    weights : {"float32", "float16", "int8"}, default="float32"
        What the large matrices are stored as: the file is about half the size in float16 and 3.5
        times smaller in int8, and a step takes as long. What that costs is measured over the same
        readings, returned, and stored in the file.
    warm_up : path-like, optional
        A second file, of a graph that takes many readings at once and brings a stream up to date:
        `StreamModel(path, warm_up=...)`. It is checked likewise; blocks of mLSTM only, and its
        weights stay float32.

    Returns
    -------
    Parity
        The worst errors found, in scaled units, of the graph as it is written.

    Raises
    ------
    ExportError
        Where graph and model differ by more than `check_parity` allows, or rounding of the weights
        costs more than 1 % of a channel's scale in float16 or 5 % in int8; no file is then written.
    TypeError
        Where it is another estimator.
    BackendError
        Where onnxruntime is not installed.
    ValueError
        Where `series` names none of the series, `units` not all of the channels and no other, or
        `weights` is none of the three, or `warm_up` is asked for and a block is an sLSTM.
    """
    if not isinstance(forecaster, Prediction):
        raise TypeError(
            f"export_onnx takes an XLSTMForecaster, got {type(forecaster).__name__}; of the sktime "
            "adapter give its `forecaster_`, and a detector to `export_detector`."
        )
    check_is_fitted(forecaster)
    check_weights(weights)
    if warm_up is not None and Path(warm_up).resolve() == Path(path).resolve():
        raise ValueError(f"`warm_up` is a second file, but {os.fspath(path)} is the first.")
    model, context = _of_series(forecaster, series)
    length = getattr(context.index, "freq", None)
    length = None if length is None else fixed_step(length)
    zone = getattr(context.index, "tz", None)
    named = dict(units or {})
    if units is not None and set(named) != set(forecaster.channels_):
        raise ValueError(
            f"`units` must have one for each of {', '.join(forecaster.channels_)}, got "
            f"{', '.join(map(str, named)) or 'none'}."
        )
    graph = build_step_graph(
        model,
        channels=forecaster.channels_,
        step=forecaster.context_.step,
        library_version=xlstm_ts.__version__,
        units=tuple(str(named[channel]) for channel in forecaster.channels_ if named),
        columns=forecaster.covariates_.columns,
        seconds=None if length is None else length.total_seconds(),
        zone=None if zone is None else str(zone),
    )
    chunks = None if warm_up is None else build_chunk_graph(model, read_contract(graph))
    table = forecaster.covariates_.table(context)
    data: Any = {"readings": context.values, "columns": table}
    with ExitStack() as files:
        step_file = files.enter_context(atomic_path(Path(path)))
        onnx.save(graph, step_file)
        parity = check_parity(model, step_file, **data)
        if warm_up is not None and chunks is not None:
            warm_up_file = files.enter_context(atomic_path(Path(warm_up)))
            onnx.save(chunks, warm_up_file)
            parity = parity.worse(check_parity(model, step_file, warm_up=warm_up_file, **data))
        if weights == "float32":
            return parity
        return write_rounded(graph, step_file, model=model, weights=weights, **data)


def _of_series(forecaster: XLSTMForecaster, key: Hashable) -> tuple[XLSTM, TimeSeries]:
    """Return the model in the units of a series, and the readings of that."""
    known = forecaster.context_.series
    if key not in known:
        raise ValueError(
            f"`series` must be one of {', '.join(map(repr, islice(known, 5)))}"
            f"{', ...' if len(known) > 5 else ''}, got {key!r}."
        )
    model, context = forecaster.model_, known[key]
    if forecaster.pooled_:
        model = copy.deepcopy(model)
        if np.isnan(context.values).all(0).any():
            raise ValueError(f"Series {key!r} has a channel without a reading in its context.")
        model.set_units(*find_units(transformed(context.values, model.config.target_transform)))
    return model, context
