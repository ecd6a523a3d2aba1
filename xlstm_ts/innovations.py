"""The model of a detector: it forecasts the innovations that the front of the chain leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.stages import Floats
from xlstm_ts.anomaly.together import judge_series
from xlstm_ts.anomaly.verdicts import Trace, Verdict
from xlstm_ts.anomaly.whitening import Innovation
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import Panel, TimeSeries
from xlstm_ts.streaming.readings import read_reading
from xlstm_ts.units import find_units

if TYPE_CHECKING:
    from xlstm_ts.detector import XLSTMAnomalyDetector

QUANTILES = (0.1, 0.5, 0.9)
SPAN = 5000.0  # readings: innovations are in running units already
CHUNK = 512  # readings in one call of the model
SAME = (
    "channels", "blocks", "d_model", "n_heads", "max_steps", "batch_size", "learning_rate",
    "validation_fraction", "device", "random_state", "verbose",
)  # fmt: skip


def fit_innovations(
    detector: XLSTMAnomalyDetector, innovations: Sequence[Sequence[Innovation]], panel: Panel
) -> tuple[XLSTMForecaster, list[Floats]]:
    """Train the model on the innovations of the training series, with the readings beside them.

    Innovations have the scale of what is to be told, readings the level that channels share. Its
    graph names the channels and knows the step of the index.

    Returns
    -------
    tuple of XLSTMForecaster and list of ndarray
        The model, and what it forecasts of each series, as `forecast_innovations` has it.
    """
    seen = [*map(_seen, innovations)]
    forecaster = _fitted(detector, seen, panel)
    return forecaster, [forecast_innovations(forecaster.model_, *one) for one in seen]


def _fitted(
    detector: XLSTMAnomalyDetector, seen: Sequence[tuple[Floats, Floats]], panel: Panel
) -> XLSTMForecaster:
    # Half of a short series is context, the other half gives windows to train on.
    longest = len(panel.longest)
    n_train = longest - round(detector.validation_fraction * longest)
    forecaster = XLSTMForecaster(
        1,
        quantiles=QUANTILES,
        patch_length=1,
        context_length=max(1, min(detector.context_length, n_train // 2)),
        scaling_span=SPAN,
        dropout=0.0,
        **{name: getattr(detector, name) for name in SAME},
    )
    names = [f"{name} (reading)" for name in panel.channels]
    errors, readings = [], []
    for series, (error, values) in zip(panel, seen, strict=True):
        errors.append(pd.DataFrame(error, series.index, list(panel.channels)))
        readings.append(pd.DataFrame(values, series.index, names))
    if panel.is_single:
        return forecaster.fit(errors[0], readings[0])
    keys = range(len(errors))  # those of the panel may be anything
    forecaster.fit(pd.concat(errors, keys=keys), pd.concat(readings, keys=keys))
    # A stream is of none of these series: the model gets the units of all of them, as of one.
    forecaster.model_.set_units(*find_units(np.concatenate(errors)))
    forecaster.context_, forecaster.pooled_ = forecaster.context_.alone(), False
    return forecaster


def forecast_innovations(model: XLSTM, seen: Floats, values: Floats) -> Floats:
    """Return what the model forecasts of each innovation from those before it, `(T, C, Q)`.

    It runs in float64 in its parallel form; NaN for the first, before which there is none.

    Parameters
    ----------
    model : XLSTM
        That of a detector.
    seen, values : ndarray of float64, shape (T, C)
        Innovations and readings, as a model may see them.
    """
    truth = copy.deepcopy(model).cpu().double().eval()
    errors, readings = (torch.as_tensor(part)[None, :-1] for part in (seen, values))
    state, shape = truth.initial_state(1), (1, seen.shape[1], len(model.config.quantiles))
    parts = [np.full(shape, np.nan)]
    # Readings of the horizon, which are not looked at.
    ahead = torch.full_like(readings[:, :1], torch.nan)
    with torch.inference_mode():
        for part, beside in zip(errors.split(CHUNK, 1), readings.split(CHUNK, 1), strict=True):
            if part.shape[1]:
                forecast, state = truth(part, state, torch.cat((beside, ahead), 1))
                parts.append(forecast[0, :, 0].numpy())
    return np.concatenate(parts)


def judge_panel(
    host: AnomalyHost, forecaster: XLSTMForecaster | None, panel: Iterable[TimeSeries]
) -> list[Trace]:
    """Return what a detector says of each series, as a fresh stream; nothing is learnt."""
    forecast = None if forecaster is None else partial(forecast_innovations, forecaster.model_)
    return judge_series(host, [series.values for series in panel], forecast)


def _seen(innovations: Sequence[Innovation]) -> tuple[Floats, Floats]:
    """Return innovations and readings, `(T, C)` each, as a model may see them."""
    seen = np.array([one.seen for one in innovations])
    return seen, np.array([one.seen_value for one in innovations])


class AnomalyStream:
    """One sequence of readings and the state it has left behind, in Python with torch.

    `xlstm_ts.streaming.detectors` is the same without torch, over an exported graph.

    Parameters
    ----------
    host : AnomalyHost
        The stages around the model; the stream keeps them.
    model : XLSTM or None
        The model of the innovations.
    channels : tuple of str
        Names of the channels of a reading, in order.
    """

    def __init__(
        self, host: AnomalyHost, model: XLSTM | None, *, channels: tuple[str, ...]
    ) -> None:
        self.host, self._channels = host, channels
        self._model = None if model is None else copy.deepcopy(model).cpu().double().eval()
        self._state = () if self._model is None else self._model.initial_state(1)
        levels = 0 if model is None else len(model.config.quantiles)
        # Nothing is forecast of the first reading, and nothing at all without a model.
        self._quantiles = np.full((host.n_channels, levels), np.nan) if levels else None

    def step(self, reading: ArrayLike) -> Verdict:
        """Take one raw reading `(C,)`, NaN where missing, and judge it.

        What names its channels, as a mapping or a row of a frame does, goes by the names.

        Raises
        ------
        StreamError
            Where it has another number of channels, or is no number.
        """
        values = read_reading(reading, self._channels)
        innovation = self.host.whitening.step(np.array(values))
        verdict = self.host.judge_one(innovation, self._quantiles)
        if self._model is not None:
            seen, value = innovation.seen[None], innovation.seen_value[None]
            with torch.inference_mode():
                forecast, self._state = self._model.step(
                    torch.as_tensor(seen), self._state, torch.as_tensor(value)
                )
            self._quantiles = forecast[0, 0].numpy()
        return verdict

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        self.host.acknowledge()
