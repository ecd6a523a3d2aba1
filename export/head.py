"""The nodes at both ends of a graph: the transform of readings, the head, raw units.

The head has quantiles from the last token, and the linear path.

Letters of shapes as in `graph`.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from xlstm_ts.config import OFFSETS, XLSTMConfig
from xlstm_ts.export.builder import Builder
from xlstm_ts.export.columns import ColumnNodes
from xlstm_ts.export.fold import ChannelUnits, array
from xlstm_ts.head import ForecastHead


def write_head(
    g: Builder, head: ForecastHead, x: str, *, scaled: str, columns: ColumnNodes | None
) -> str:
    """Write the scaled quantiles `(B, horizon, C, Q)`, in order by construction.

    Parameters
    ----------
    g : Builder
        The graph under construction.
    head : ForecastHead
        The weights.
    x : str
        Tokens `(B * G, E)`.
    scaled : str
        Scaled readings of the buffer `(B, C, R)`; only the linear path looks at them.
    columns : ColumnNodes or None
        What stands for the covariates.
    """
    x = g.norm(x, array(head.norm.weight), epsilon=head.norm.eps)
    out = g("Gemm", x, array(head.linear.weight).T, array(head.linear.bias))
    if columns is not None and head.future_path is not None:
        out = columns.add_future(out, x, head.future_path)
    forecast = _ordered(g, head, _channels_last(g, head, out))
    if head.linear_path is None:
        return forecast
    return g("Add", forecast, _linear_path(g, head, scaled, head.linear_path))


def write_reading(g: Builder, config: XLSTMConfig, reading: str, *, units: ChannelUnits) -> str:
    """Write raw readings `(..., C)` on the scale of the model, in units of their channels.

    What has no logarithm becomes NaN or infinite, and so missing.
    """
    if config.target_transform is not None:
        offset = np.float32(OFFSETS[config.target_transform])
        shifted = g("Add", reading, offset) if offset else reading
        reading = g("Log", g("Mul", shifted, 1 / units.level))
    return reading if (units.unit == 1).all() else g("Mul", reading, 1 / units.unit)


def write_raw(
    g: Builder,
    config: XLSTMConfig,
    forecast: str,
    *,
    mean: str,
    scale: str,
    units: ChannelUnits,
) -> str:
    """Write a forecast in raw units, with the transform undone.

    Parameters
    ----------
    g : Builder
        The graph under construction.
    config : XLSTMConfig
        The shape of the model.
    forecast : str
        Scaled quantiles `(B, horizon, C, Q)`.
    mean, scale : str
        What is in force, in units of the channels: C values a stream.
    units : ChannelUnits
        These units.
    """
    shape = np.array([-1, 1, config.n_channels, 1])
    mean, scale = (g("Reshape", part, shape) for part in (mean, scale))
    forecast = g("Add", g("Mul", forecast, scale), mean)
    if not (units.unit == 1).all():
        forecast = g("Mul", forecast, units.unit[:, None])
    if config.target_transform is None:
        return forecast
    offset = np.float32(OFFSETS[config.target_transform])
    forecast = g("Mul", g("Exp", forecast), units.level[:, None])
    return g("Sub", forecast, offset) if offset else forecast


def _channels_last(g: Builder, head: ForecastHead, rows: str) -> str:
    """Lay out `(rows, horizon * C / G * Q)` as `(B, horizon, C, Q)`."""
    config = head.config
    horizon, levels = config.horizon, len(config.quantiles)
    if config.groups == 1:
        return g("Reshape", rows, np.array([-1, horizon, config.n_channels, levels]))
    # Independent channels are the groups.
    parts = g("Reshape", rows, np.array([-1, config.groups, horizon, levels]))
    return g("Transpose", parts, perm=[0, 2, 1, 3])


def _ordered(g: Builder, head: ForecastHead, raw: str) -> str:
    """Write the median and, from it, the levels above and below: all by one product."""
    levels = len(head.config.quantiles)
    if levels == 1:
        return raw
    both = g("Concat", raw, g("Softplus", raw), axis=3)
    median = np.zeros((levels, levels))
    median[head.config.median] = 1
    return g("MatMul", both, np.concatenate((median, array(head.ordering))))


def _linear_path(g: Builder, head: ForecastHead, scaled: str, layer: nn.Linear) -> str:
    config = head.config
    if config.linear_length < config.buffer_length:
        scaled = g.cut(scaled, axis=2, start=-config.linear_length)
    path = g("MatMul", scaled, array(layer.weight).T)
    path = g("Transpose", path, perm=[0, 2, 1])
    return g("Reshape", path, np.array([-1, config.horizon, config.n_channels, 1]))
