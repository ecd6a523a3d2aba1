"""What pictures share: axes to draw on, times and their units, fans of quantiles.

Lines differ by their style and fans by their shade, so that a grey print says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.exceptions import BackendError
from xlstm_ts.steps import fixed_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = Any  # an Axes, or a sequence of them
LINE, TRUTH = "#08519c", "#222222"
SHADES = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6")  # of bands, from the outermost in
UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}  # in seconds


class Display:
    """A picture in scikit-learn's manner: made from data, drawn by `plot`.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        What was drawn on, in the order of the class.
    ax_ : Axes
        The first of them.
    figure_ : Figure
        The figure they are in.
    """

    ax_: Axes
    axes_: NDArray[np.object_]
    figure_: Figure

    def _open(
        self,
        ax: Drawn | None,
        *,
        rows: int,
        columns: int = 1,
        size: tuple[float, float],
        share_time: bool = False,
    ) -> NDArray[np.object_]:
        """Take the axes that were given, or make a figure of so many inches."""
        if ax is None:
            axes = _new_axes(rows, columns, figsize=size, sharex=share_time)
        else:
            axes = np.ravel(np.array(ax, object))
        if len(axes) != rows * columns:
            raise ValueError(f"`ax` must be {rows * columns} Axes, got {len(axes)}.")
        self.axes_, self.ax_, self.figure_ = axes, axes[0], axes[0].figure
        return axes


def _new_axes(rows: int, columns: int, **options: Any) -> NDArray[np.object_]:
    try:
        import matplotlib.pyplot as plt
    except ImportError as err:
        raise BackendError("Pictures need matplotlib: install xlstm-ts[plot].") from err
    return np.ravel(plt.subplots(rows, columns, layout="constrained", squeeze=False, **options)[1])


def on_axis(index: pd.Index[Any]) -> Any:
    """Return times as matplotlib draws them: a period at its start, a time zone kept."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    # As objects, times keep their zone; matplotlib would take the values, which are in UTC.
    return index.to_numpy()


def time_label(index: pd.Index[Any]) -> str:
    """Return what the times of a series are called, with their time zone: "time (Europe/Rome)"."""
    timed = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)
    name = str(index.name or ("time" if timed else "reading"))
    zone = getattr(index, "tz", None)
    return name if zone is None else f"{name} ({zone})"


def step_unit(index: pd.Index[Any]) -> tuple[float, str]:
    """Return the step of an index and its unit: `(15.0, "minutes")`.

    Steps without a fixed length are counted, `(1.0, "steps of ME")`, as readings without times are.
    """
    freq = getattr(index, "freq", None)
    if freq is None:
        return 1.0, "readings"
    step = fixed_step(freq)
    if step is None:
        return 1.0, f"steps of {index.freqstr}"  # type: ignore[attr-defined]
    seconds = step.total_seconds()
    unit = next((unit for unit, size in UNITS.items() if size <= seconds), "seconds")
    return seconds / UNITS[unit], unit


def draw_fan(
    axis: Axes, times: Any, quantiles: NDArray[np.float64], *, levels: Sequence[float], label: bool
) -> None:
    """Draw the point forecast, and a band between each pair of levels, the inner ones darker.

    Parameters
    ----------
    axis : Axes
        What to draw on.
    times : array (H,)
        What `on_axis` gives.
    quantiles : ndarray of float64, shape (H, Q)
        Forecasts of one channel.
    levels : sequence of float, length Q
        Their levels.
    label : bool
        Whether the legend names them.
    """
    middle = int(np.abs(np.subtract(levels, 0.5)).argmin())
    name = "forecast" if label else None
    axis.plot(times, quantiles[:, middle], color=LINE, lw=1.5, ls="--", label=name)
    for low in range(len(levels) // 2):
        high = len(levels) - 1 - low
        axis.fill_between(
            times,
            quantiles[:, low],
            quantiles[:, high],
            color=SHADES[min(low, len(SHADES) - 1)],
            lw=0,
            label=f"{levels[low]:g} to {levels[high]:g}" if label else None,
        )


def put_legend(axis: Axes) -> None:
    """Name the lines above the axes, where no line is."""
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False)
