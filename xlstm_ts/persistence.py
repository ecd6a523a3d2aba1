"""A fitted forecaster in one file: numpy arrays and one JSON text, never a pickle."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from xlstm_ts.calibration import Calibration
from xlstm_ts.columns import Column
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.exogenous import Covariates
from xlstm_ts.files import atomic_path, content_of
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import Floats, LongColumns, Panel, TimeSeries
from xlstm_ts.runs import Record

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

FORMAT, DETECTOR = "xlstm-ts forecaster", "xlstm-ts detector"
LOADERS = {
    FORMAT: "a forecaster: load it with XLSTMForecaster.load",
    DETECTOR: "a detector: load it with XLSTMAnomalyDetector.load",
}
VERSION = 3
EMPTY = {f"array{n}d": np.empty((0,) * n) for n in (1, 2, 3)}


def save(path: Path, forecaster: XLSTMForecaster) -> None:
    """Write a fitted forecaster; the file appears whole or not at all.

    Raises
    ------
    SeriesError
        Where a label or the index of the training series has no form in a file; nothing is
        written.
    """
    weights = forecaster.model_.state_dict()
    arrays = {f"weight/{name}": tensor.cpu().numpy() for name, tensor in weights.items()}
    text = json.dumps(_describe(forecaster), default=from_numpy)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        context = np.concatenate([one.values for one in forecaster.context_])
        errors = forecaster.calibration_.errors.astype(np.float32)
        columns = [forecaster.covariates_.numbers(one) for one in forecaster.context_]
        np.savez(
            file,
            header=np.array(text),
            context=context,
            covariates=np.concatenate(columns),
            static=np.stack([one.static for one in forecaster.context_]),
            calibration=errors,
            **arrays,
        )


def load(path: Path, forecaster: XLSTMForecaster) -> None:
    """Fill an unfitted forecaster with what `save` wrote.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    SeriesError
        Where the file is not one that `save` wrote, or is of a later version.
    """
    header, arrays = read_file(path, form=FORMAT, version=VERSION)
    with saved(path, form=FORMAT):
        _restore(forecaster, header, arrays)


def read_file(
    path: Path, *, form: str, version: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file that `save` of an estimator wrote.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    SeriesError
        Where it is none of that form and version.
    """
    with saved(path, form=form):
        with path.open("rb") as file:
            if path.suffix == ".onnx" and not zipfile.is_zipfile(file):
                raise SeriesError(
                    f"{path} looks like a step graph, which a stream runs (StreamModel, or "
                    "`xlstm-ts stream`): give the file that `save` or `fit` wrote."
                )
            size = _check_sizes(file)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        # Without a width, or of a type without one, an array of any length takes no bytes.
        if any(math.prod(max(1, n) for n in array.shape) > size for array in arrays.values()):
            raise ValueError("it has arrays longer than itself")
        header = json.loads(str(arrays.pop("header")))
        holds, _ = LOADERS[header["format"]], header["version"]
    if header["format"] != form:
        raise SeriesError(f"{path} holds {holds}.")
    if header["version"] != version:
        raise SeriesError(
            f"{path} has format version {header['version']}, this library reads {version}; "
            "use the xlstm-ts that wrote it, or fit again."
        )
    return header, arrays


def saved(path: Path, *, form: str) -> AbstractContextManager[None]:
    """Read what `save` of an estimator wrote: whatever is wrong with it is a SeriesError."""
    kind = f"saved {form.removeprefix('xlstm-ts ')}"
    return content_of(str(path), kind=kind, error=SeriesError)


def _check_sizes(file: IO[bytes]) -> int:
    """Refuse an archive whose parts are larger than itself: `save` does not compress.

    Returns its size.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        if sum(part.file_size for part in archive.infolist()) > size:
            raise ValueError("its parts are compressed")
    file.seek(0)
    return size


def _describe(forecaster: XLSTMForecaster) -> dict[str, Any]:
    """Return everything but the arrays, as JSON holds it."""
    params = forecaster.get_params()
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = None  # a generator has no text form, and training is over
    params["callbacks"] = None  # nor has code
    if params["checkpoint"] is not None:
        params["checkpoint"] = os.fspath(params["checkpoint"])
    return {
        "format": FORMAT,
        "version": VERSION,
        "params": params,
        "config": dataclasses.asdict(forecaster.model_.config),
        "context_length": forecaster.context_length_,
        "season_length": forecaster.season_length_,
        "history": [list(record) for record in forecaster.history_],
        "columns": [dataclasses.asdict(column) for column in forecaster.covariates_.columns],
        **describe_panel(forecaster.context_),
    }


def describe_panel(panel: Panel) -> dict[str, Any]:
    """Return all of a panel but its arrays, as JSON holds it.

    Raises
    ------
    SeriesError
        Where a label or an index would not come back the same.
    """
    return {
        "channels": list(panel.channels),
        "keys": [_describe_key(key) for key in panel.series],
        "lengths": [len(one) for one in panel],
        "indexes": [_describe_index(one.index) for one in panel],
        "like": _describe_like(panel.like),
        "long": panel.long,
        "is_example": panel.is_example,
    }


def _restore(
    forecaster: XLSTMForecaster, header: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    # JSON has no tuples.
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in header["params"].items()}
    tuples = {name: tuple(header["config"][name]) for name in ("quantiles", "periods")}
    config = {**header["config"], **tuples}
    columns = tuple(Column(**column) for column in header["columns"])
    forecaster.set_params(**params)
    context = {name: arrays.pop(name) for name in ("context", "covariates", "static")}
    forecaster.covariates_ = Covariates(columns=columns)
    forecaster.calibration_ = Calibration(arrays.pop("calibration").astype(np.float64))
    weights = {name.removeprefix("weight/"): torch.as_tensor(a) for name, a in arrays.items()}
    with torch.device("meta"):  # takes no memory: the configuration may ask for any size
        expected = XLSTM(XLSTMConfig(**config)).state_dict()
    if _shapes(expected) != _shapes(weights):
        raise ValueError("weights and configuration differ")
    if context["context"].shape != (sum(header["lengths"]), config["n_channels"]):
        raise ValueError("series and configuration differ")
    model = XLSTM(XLSTMConfig(**config))
    model.load_state_dict(weights)
    forecaster.model_ = model.eval()
    forecaster.context_length_ = header["context_length"]
    forecaster.season_length_ = header["season_length"]
    forecaster.history_ = [Record(*record) for record in header["history"]]
    forecaster.channels_ = tuple(header["channels"])
    forecaster.context_ = restore_panel(header, context)
    forecaster.pooled_ = not forecaster.context_.is_single


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def restore_panel(header: dict[str, Any], arrays: dict[str, Floats]) -> Panel:
    """Return the panel of `describe_panel`; arrays of its series one after the other by name."""
    ends = np.cumsum(header["lengths"])[:-1]
    parts = (np.split(arrays[name], ends) for name in ("context", "covariates"))
    rows = zip(header["keys"], header["indexes"], arrays["static"], *parts, strict=True)
    series = {
        _restore_key(key): TimeSeries(
            values=values,
            index=_restore_index(index, len(values)),
            covariates=covariates,
            static=static,
        )
        for key, index, static, values, covariates in rows
    }
    long = header["long"]
    return Panel(
        series=series,
        channels=tuple(header["channels"]),
        like=_restore_like(header["like"]),
        long=None if long is None else LongColumns(*long),
        is_example=header.get("is_example", False),
    )


def _describe_key(key: Any) -> Any:
    """Return the key of a series: a label, or one for each level."""
    return [_label(part) for part in key] if isinstance(key, tuple) else _label(key)


def _restore_key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _describe_index(index: pd.Index[Any]) -> dict[str, Any]:
    """Return an index of one step as its first value and its step."""
    name = _label(index.name)
    if isinstance(index, pd.RangeIndex):
        return {"kind": "range", "start": index.start, "step": index.step, "name": name}
    kind = "period" if isinstance(index, pd.PeriodIndex) else "datetime"
    freq = index.freqstr  # type: ignore[attr-defined]
    described = {"kind": kind, "start": str(index[0]), "freq": freq, "name": name}
    if isinstance(index, pd.DatetimeIndex):
        described |= {"tz": str(index.tz) if index.tz else None, "unit": index.unit}
    _check_index(index, described)
    return described


def _check_index(index: Any, described: dict[str, Any]) -> None:
    """Refuse an index that would not come back: a zone or a step that text does not hold."""
    try:
        again: Any = _restore_index(described, len(index))
        same = again.equals(index) and again.freq == index.freq
    except (ValueError, KeyError):
        same = False
    if not same:
        raise SeriesError(
            f"The index of the training series cannot be saved: {index.dtype} with a step of "
            f"{index.freqstr}; give it a named time zone, as by y.tz_convert('UTC'), or a step "
            "that pandas.date_range knows by name, and fit again."
        )


def _restore_index(described: dict[str, Any], length: int) -> pd.Index[Any]:
    start, name = described["start"], described["name"]
    if described["kind"] == "range":
        step = described["step"]
        return pd.RangeIndex(start, start + step * length, step, name=name)
    freq = described["freq"]
    if described["kind"] == "period":
        return pd.period_range(start, periods=length, freq=freq, name=name)
    first = pd.Timestamp(start)
    if described["tz"] is not None:
        first = first.tz_convert(described["tz"])
    return pd.date_range(first, periods=length, freq=freq, name=name, unit=described["unit"])


def _describe_like(like: Any) -> dict[str, Any]:
    if isinstance(like, pd.DataFrame):
        columns = [_label(column) for column in like.columns]
        described = {"kind": "frame", "columns": columns, "name": _label(like.columns.name)}
    elif isinstance(like, pd.Series):
        described = {"kind": "series", "name": _label(like.name)}
    else:
        return {"kind": f"array{like.ndim}d"}
    return {**described, "levels": [_label(name) for name in like.index.names]}


def from_numpy(value: Any) -> Any:
    """Give JSON the numbers of a parameter that came as a numpy scalar or array."""
    if isinstance(value, np.generic | np.ndarray | pd.Index):
        return value.tolist()
    raise TypeError(f"A parameter of type {type(value).__name__} cannot be saved.")


def _label(label: Any) -> str | int | None:
    """Return a name as JSON holds it; what would come back as another is refused."""
    if isinstance(label, np.integer):
        return int(label)
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise SeriesError(
            f"The label {label!r} of the training series cannot be saved: only text and integers "
            "can; rename it and fit again."
        )
    return label


def _restore_like(described: dict[str, Any]) -> Any:
    if described["kind"] in EMPTY:
        return EMPTY[described["kind"]]
    levels = described["levels"]
    index = pd.MultiIndex.from_arrays([[]] * len(levels), names=levels) if levels[1:] else None
    if described["kind"] == "frame":
        columns = pd.Index(described["columns"], name=described["name"])
        return pd.DataFrame(index=index, columns=columns, dtype=float)
    return pd.Series(index=index, name=described["name"], dtype=float)
