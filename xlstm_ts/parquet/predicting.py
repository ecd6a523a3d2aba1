"""Forecasts of many short stretches at a time, and of whole files of series into another file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from xlstm_ts.config import lowest
from xlstm_ts.evaluation import rolling_forecasts
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.exogenous import check_zone
from xlstm_ts.files import atomic_path, check_folder
from xlstm_ts.panels import Floats, LongColumns, Panel, TimeSeries
from xlstm_ts.parquet.index import Index
from xlstm_ts.parquet.panel import ParquetPanel, PathLike
from xlstm_ts.parquet.rows import read_series
from xlstm_ts.parquet.scan import read_index
from xlstm_ts.pools import Place
from xlstm_ts.steps import step_seconds

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

# Series in memory at a time: a batch of forecasts, and a row group of the file.
AT_ONCE = 256


def predict_parquet(forecaster: XLSTMForecaster, y: ParquetPanel, path: PathLike) -> None:
    """Forecast every series of Parquet files, and write the quantiles to one more.

    Parameters
    ----------
    forecaster : XLSTMForecaster
        Fitted on many series with one target, without `X` and `static`; on files or frames.
    y : ParquetPanel
        The series, of the step of the fit; those of the fit or others.
    path : path-like
        The file: a row for each series and each of the next `horizon` times, in the order of the
        series, with one column a quantile, named as "0.5". It appears whole or not at all.

    Raises
    ------
    NotFittedError
        Before `fit`.
    SeriesError
        Where the files cannot be used, or the forecaster was fitted on something else.
    FileNotFoundError
        Where there is no such file or folder, or none to write to.

    Warns
    -----
    SeriesWarning
        Where series have no reading in their context; their forecast is null.

    Examples
    --------
    >>> predict_parquet(forecaster, ParquetPanel("data/"), "forecasts.parquet")  # doctest: +SKIP
    """
    check_is_fitted(forecaster)
    check_folder(Path(path))
    long = forecaster._long_columns()
    _check_fit(forecaster)
    index = read_index(y, long=long, lowest=lowest(forecaster.target_transform))
    _check_times(forecaster, index)
    silent = 0
    with atomic_path(Path(path)) as temporary, _Writer(temporary) as writer:
        for start in range(0, len(index.keys), AT_ONCE):
            panel = _contexts(index, forecaster, range(start, start + AT_ONCE))
            forecasts = forecasts_after(forecaster, list(panel), told=0)
            silent += int(np.isnan(forecasts).any((1, 2, 3)).sum())
            levels = forecaster.model_.config.quantiles
            writer.write(panel.restore_quantiles(list(forecasts), tuple(map(str, levels))))
    if silent:
        warnings.warn(
            f"{silent} of {len(index.keys)} series have no reading in their context of "
            f"{forecaster.context_length_}: their forecasts are null.",
            SeriesWarning,
            stacklevel=2,
        )


def forecasts_after(
    forecaster: XLSTMForecaster, parts: Sequence[TimeSeries], *, told: int
) -> Floats:
    """Return the quantile forecasts `(N, H, C, Q)` from within stretches of series.

    Parameters
    ----------
    forecaster : XLSTMForecaster
        A fitted one.
    parts : sequence of TimeSeries
        At most a context each, and after it the readings that are told.
    told : int
        Readings at the end of each that are forecast, not seen: 0, or the horizon.
    """
    context, horizon = forecaster.context_length_, forecaster.model_.config.horizon
    # One after the other, with room for a context and a horizon each, they are one long series.
    shape = (len(parts), context + horizon)
    values = np.full((*shape, len(forecaster.channels_)), np.nan)
    columns = np.full((*shape, len(forecaster.covariates_.columns)), np.nan)
    for number, one in enumerate(parts):
        begin = context + told - len(one)
        values[number, begin : context + told] = one.values
        columns[number, begin:] = forecaster.covariates_.table(one, ahead=horizon - told)
    return rolling_forecasts(
        forecaster.model_,
        np.concatenate(values),
        covariates=np.concatenate(columns),
        origins=np.arange(len(parts)) * (context + horizon) + context,
        context_length=context,
        own_units=True,
    )


def panel_of(
    series: dict[Any, TimeSeries], *, long: LongColumns, is_example: bool = False
) -> Panel:
    """Return series as the panel that a long frame of them gives."""
    names = pd.MultiIndex.from_arrays([[], []], names=[long.id, long.time])
    like = pd.Series(index=names, name=long.target, dtype=float)
    return Panel(
        series=series, channels=(long.target,), like=like, long=long, is_example=is_example
    )


def last_places(index: Index, series: Sequence[int], *, length: int) -> list[Place]:
    """Return the last `length` readings of each of some series."""
    ends = [int(index.lengths[n]) for n in series]
    return [Place(n, max(0, end - length), end) for n, end in zip(series, ends, strict=True)]


def _contexts(index: Index, forecaster: XLSTMForecaster, series: range) -> Panel:
    chosen = [n for n in series if n < len(index.keys)]
    places = last_places(index, chosen, length=forecaster.context_length_)
    parts = read_series(index, places)
    keys = [index.keys[n] for n in chosen]
    return panel_of(dict(zip(keys, parts, strict=True)), long=index.long)


def _check_fit(forecaster: XLSTMForecaster) -> None:
    columns = forecaster.covariates_.named("past", "known", "static")
    if not forecaster.pooled_ or len(forecaster.channels_) > 1 or columns:
        raise SeriesError(
            "The forecaster was fitted on a single series, several channels or with `X` or "
            "`static`; those of Parquet files have one target each. Use predict(y, X)."
        )


def _check_times(forecaster: XLSTMForecaster, index: Index) -> None:
    known, found = forecaster.context_.longest.index, index.clock.index(int(index.first[0]), 1)
    names = [getattr(each, "freqstr", "one count") for each in (known, found)]
    length = step_seconds(found)
    if names[0] != names[1] and (length is None or length != step_seconds(known)):
        raise SeriesError(
            f"The files have a step of {names[1]}, the model was trained on one of {names[0]}; "
            "give files of that."
        )
    if forecaster.covariates_.named("cyclic"):
        check_zone(found, known)


class _Writer:
    """Writes frames as row groups of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, frame: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = None if self.file is None else self.file.schema
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        if self.file is None:
            self.file = pq.ParquetWriter(self.path, table.schema)
        self.file.write_table(table)
