"""The forecaster in sktime's manner, for its pipelines, searches and splitters.

It needs the extra `sktime`; nothing else of the package does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import Signature, signature
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from xlstm_ts.forecaster import XLSTMForecaster as Forecaster
from xlstm_ts.frames import read_panel
from xlstm_ts.panels import Floats, LongColumns, Panel
from xlstm_ts.steps import TIMES, future_index
from xlstm_ts.transforms import restored, transformed

Readings = pd.Series | pd.DataFrame
# The one default that differs: sktime takes exogenous data for known when it forecasts.
KNOWN_FUTURE = {"known_future": "all"}


def _signature() -> Signature:
    """Return the signature of the forecaster, with that default."""
    parameters = signature(Forecaster.__init__).parameters
    return Signature(
        [
            parameter.replace(default=KNOWN_FUTURE.get(name, parameter.default))
            for name, parameter in parameters.items()
        ]
    )


class XLSTMForecaster(BaseForecaster):  # type: ignore[misc]
    """Forecast with an xLSTM whatever sktime holds: one series, a panel or a hierarchy.

    Many series train one model together, each forecast from its own end.

    Parameters
    ----------
    horizon : int, default=24
        The furthest step that can be forecast; `fh` may be any steps up to it, of which `fit` need
        not know.
    quantiles : tuple of float, default=(0.1, 0.5, 0.9)
        The trained levels, of which the others follow: train those that matter most, in the tails
        above all. A single level forecasts no other.
    context_length, patch_length, channels, channel_embedding, blocks, d_model, n_heads, \
expansion, conv_length, linear_length, scaling_span, dropout, target_transform, max_steps, \
batch_size, learning_rate, weight_decay, gradient_clip, stateful, validation_fraction, patience, \
calendar, id_column, time_column, target_column, max_time, callbacks, checkpoint, device, \
devices, num_nodes, strategy, precision, random_state, verbose
        As those of `xlstm_ts.XLSTMForecaster`.
    known_future : "all" or sequence of str, default="all"
        Columns of `X` that are known for the times that `predict` forecasts, as sktime has it of
        all exogenous data. The others are learnt from up to now, and `predict` ignores them: so
        with `()` it needs no `X`.

    Attributes
    ----------
    forecaster_ : xlstm_ts.XLSTMForecaster
        The fitted forecaster; its `predict_interval` is conformal, and `export_onnx` takes it.

    Notes
    -----
    `update` with `update_params=False` moves the context on and leaves the weights; with
    `update_params=True` it trains on with what is new (`partial_fit`). Readings that are known
    already are passed over; readings that end before what is known are the context from then on,
    so that `update_predict` may go through the past.

    `X` goes by its times, whatever else it holds. `predict` needs those of `fh` alone: what is
    known of a step acts on that step and on no other.

    A level that was not trained is interpolated between its neighbours, or extrapolated from the
    outermost two, linearly in the normal score: that keeps levels in order and is exact where a
    distribution is normal. `predict_interval` and `predict_proba` follow from the quantiles, as
    sktime has it.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from xlstm_ts.sktime import XLSTMForecaster
    >>> forecaster = XLSTMForecaster(horizon=12, max_steps=20, random_state=0).fit(load_airline())
    >>> forecaster.predict(fh=[1, 12]).index.astype(str).tolist()
    ['1961-01', '1961-12']
    """

    _tags = {  # noqa: RUF012 - sktime reads a plain dict
        "authors": ["xlstm-ts"],
        "maintainers": ["xlstm-ts"],
        "y_inner_mtype": ["pd.Series", "pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "requires-fh-in-fit": False,
        "capability:multivariate": True,
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "capability:exogenous": True,
        "capability:categorical_in_X": False,
        "capability:missing_values": True,
        "capability:unequal_length": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
    }
    # The forecaster keeps its own context; a second copy of all readings would serve nothing.
    _config = {"remember_data": False}  # noqa: RUF012

    # The parameters are taken over, not told twice; sktime reads their names off the signature.
    def __init__(self, *args: Any, **params: Any) -> None:
        forecaster: Any = self  # in all but the class
        Forecaster.__init__(forecaster, *args, **KNOWN_FUTURE | params)
        super().__init__()
        # sktime leaves these out where data are not remembered, and misses them if they are to be.
        self._y = self._X = None

    __init__.__signature__ = _signature()  # type: ignore[attr-defined]

    def _fit(
        self,
        y: Readings,
        X: pd.DataFrame | None = None,
        fh: ForecastingHorizon | None = None,
    ) -> XLSTMForecaster:
        self.forecaster_ = Forecaster(**self.get_params(deep=False)).fit(y, X)
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None = None) -> Readings:
        rows = self._rows(fh)
        forecasts: Any = self.forecaster_.predict(X=self._ahead(X, rows))
        return forecasts.iloc[rows]

    def _predict_quantiles(
        self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: Sequence[float]
    ) -> pd.DataFrame:
        rows = self._rows(fh)
        trained: Any = self.forecaster_.predict_quantiles(X=self._ahead(X, rows))
        trained = trained.iloc[rows]
        names, levels = self._get_varnames(), self.forecaster_.model_.config.quantiles
        values = trained.to_numpy().reshape(len(trained), len(names), len(levels))
        columns = pd.MultiIndex.from_product((names, alpha))
        # On the scale of the model: no level falls below what a logarithm allows.
        transform = self.forecaster_.model_.config.target_transform
        scaled = _interpolate(transformed(values, transform), levels, alpha=alpha)
        wanted = restored(scaled, transform).reshape(len(trained), -1)
        return pd.DataFrame(wanted, trained.index, columns)

    def _update(
        self, y: Readings, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> XLSTMForecaster:
        forecaster = self.forecaster_
        later = _later(y, forecaster.context_)
        if len(later) and update_params:
            forecaster.partial_fit(later, X)
        elif len(later):
            forecaster.update(later, X)
        forecaster.context_ = _gone_back(y, X, forecaster).last(forecaster.context_length_)
        return self

    def _ahead(self, X: pd.DataFrame | None, rows: NDArray[np.int64]) -> pd.DataFrame | None:
        """Return the columns of all steps, NaN at those that are not asked for."""
        forecaster = self.forecaster_
        if X is None or not forecaster.covariates_.columns:
            return X
        if not forecaster.covariates_.named("known"):
            return None  # sktime hands over the times of the horizon, of which nothing is asked
        context = forecaster.context_
        blank = np.zeros((forecaster.horizon, len(context.channels)))
        like: Any = context.restore([blank] * len(context.series))
        whole = like.index
        absent = ~whole[rows].isin(X.index)
        if absent.any():
            first = whole[rows][int(absent.argmax())]
            raise ValueError(f"`X` has no row for {first}, which `fh` asks for; give one.")
        return X.reindex(whole)

    def _rows(self, fh: ForecastingHorizon) -> NDArray[np.int64]:
        """Return the rows of a forecast that a horizon names: of each series, from its own end."""
        horizon, rows = self.forecaster_.horizon, []
        for number, series in enumerate(self.forecaster_.context_):
            wanted = fh.to_absolute_index(series.index[-1:])
            steps = future_index(series.index, horizon).get_indexer(wanted)
            if (steps < 0).any():
                beyond = wanted[int((steps < 0).argmax())]
                raise ValueError(
                    f"`fh` asks for {beyond}, which is none of the {horizon} steps after "
                    f"{series.index[-1]}; fit with a larger `horizon`, or ask for less."
                )
            rows.append(number * horizon + steps)
        return np.concatenate(rows)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return parameters of small forecasters that sktime's checks fit in no time.

        Parameters
        ----------
        parameter_set : str, default="default"
            Name of the set; there is one.

        Returns
        -------
        list of dict
            Parameters of each forecaster.
        """
        small = {
            "horizon": 5,
            "context_length": 2,
            "patch_length": 1,
            "d_model": 4,
            "n_heads": 1,
            "max_steps": 2,
            "batch_size": 4,
            "validation_fraction": 0.0,
            "random_state": 0,
        }
        other = {"blocks": "s", "channels": "mixed", "patch_length": 2, "quantiles": (0.25, 0.75)}
        return [small | {"blocks": "m"}, small | other]


def _interpolate(values: Floats, levels: Sequence[float], *, alpha: Sequence[float]) -> Floats:
    """Return the levels `alpha` of quantiles `(N, C, Q)`, linear in the normal score."""
    if list(alpha) == list(levels):
        return values
    if len(levels) == 1:
        raise ValueError(f"`quantiles` has {levels[0]} alone, which tells no other; fit with more.")
    trained, wanted = (
        np.array([NormalDist().inv_cdf(level) for level in some]) for some in (levels, alpha)
    )
    # The trained level below each wanted one; outside, the outermost two go on.
    below = np.clip(np.searchsorted(trained, wanted) - 1, 0, len(levels) - 2)
    share = (wanted - trained[below]) / (trained[below + 1] - trained[below])
    return (1 - share) * values[..., below] + share * values[..., below + 1]


def _later(y: Readings, context: Panel) -> Readings:
    """Return the readings after the end of what is known: sktime's windows overlap."""
    if context.is_single:
        return _after(y, context.series[None].index)
    levels: Any = list(range(y.index.nlevels - 1))
    parts = {}
    for key, part in y.groupby(level=levels if len(levels) > 1 else 0, sort=False):
        one = part.droplevel(levels)
        parts[key] = _after(one, context.series[key].index) if key in context.series else one
    parts = {key: part for key, part in parts.items() if len(part)}
    return pd.concat(parts, names=y.index.names) if parts else y.iloc[:0]


def _after(y: Readings, known: pd.Index[Any]) -> Readings:
    later = y[y.index > known[-1]]
    if isinstance(known, TIMES) or not len(later):
        return later
    # The forecaster lets counts just go on; for sktime one that is left out is a missing reading.
    start: Any = future_index(known, 1)[0]
    counts = pd.RangeIndex(start, later.index[-1] + 1, known.step)  # type: ignore[attr-defined]
    return later.reindex(counts.union(later.index))


def _gone_back(y: Readings, X: pd.DataFrame | None, forecaster: Forecaster) -> Panel:
    """Return the context with the series that now end earlier replaced by their new readings."""
    context = forecaster.context_
    new, known = read_panel(y, known=context), context.series
    back = {
        key: one
        for key, one in new.series.items()
        if key in known and one.index[-1] < known[key].index[-1]
    }
    if not back:
        return context
    earlier = forecaster.covariates_.attach(
        replace(new, series=back), X, None, long=LongColumns(), known=context
    )
    return replace(context, series=known | earlier.series)
