"""A machine with five related sensors, and faults of which every reading is known.

An electric motor drives a compressor under a changing load. The load sets the current at once,
the bearing temperature with a lag, the vibration and, inversely, the pressure:

    load          shift pattern of workdays and weekends, batches of about five hours, wandering
    current       magnetising and active part, added as a right-angled triangle
    temperature   ambient (day, weather) + rise with load², first-order lag of three hours + wear
    vibration     grows with the load and, slowly, with wear
    pressure      regulated, sags under load
"""

from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import Tick

from xlstm_ts.datasets.faults import SLOT_MINIMUM, Fault, insert_faults, plan_faults

CHANNELS = {
    "load_pct": "%",
    "motor_current_A": "A",
    "bearing_temperature_C": "degC",
    "vibration_mm_s": "mm/s",
    "pressure_bar": "bar",
}
"""The sensors, in the order of the columns, and their units."""

_NOISE = np.array([0.8, 0.4, 0.3, 0.1, 0.03])  # standard deviation of each sensor, in its unit
_START = "2024-01-01"  # a Monday
_BURST = (4, 12)  # readings

_Array = NDArray[np.float64]


class SensorStream(NamedTuple):
    """Readings of one machine and the truth about them.

    Attributes
    ----------
    readings : pd.DataFrame of shape (n_readings, 5), float64
        What the sensors report, NaN where a reading is missing; columns as in `CHANNELS`, on a
        regular `DatetimeIndex` named "date".
    labels : pd.DataFrame of shape (n_readings, 5), bool
        True where a channel is faulty, be the reading missing or not.
    faults : pd.DataFrame of shape (n_faults, 4)
        One row per fault in order of time: `start` and `end` (Timestamps, both faulty), `kind`
        and `channel`.
    clean : pd.DataFrame of shape (n_readings, 5), float64
        The same readings without faults and with none missing.
    """

    readings: pd.DataFrame
    labels: pd.DataFrame
    faults: pd.DataFrame
    clean: pd.DataFrame


def make_sensor_stream(
    n_readings: int = 2688,
    *,
    n_faults: int = 10,
    missing: float = 0.01,
    fault_free: float = 0.5,
    freq: str = "h",
    random_state: int | np.random.Generator | None = None,
) -> SensorStream:
    """Make the sensor readings of a machine, with labelled faults in them.

    Parameters
    ----------
    n_readings : int, default 2688
        Length of the stream; hourly, the default is sixteen weeks.
    n_faults : int, default 10
        Number of faults, none overlapping. From eight on, each kind of `faults.FAULT_KINDS`
        occurs: "spike", "stuck", "drift", "level_shift", "broken_correlation", "noise",
        "oscillation" and "gain".
    missing : float, default 0.01
        Share of missing readings to expect, 0 to 0.5: about half are single readings of one
        sensor, half are bursts of 4 to 12 readings in which the whole machine is silent.
    fault_free : float, default 0.5
        First part of the stream that holds no fault, 0 to below 1: room to train in.
    freq : str, default "h"
        Step of the index, a fixed pandas offset of at most 12 hours.
    random_state : int or np.random.Generator, optional
        Seed. One seed gives the same bits each time; the clean signal and the missing readings do
        not depend on the number of faults.

    Returns
    -------
    SensorStream
        Readings, labels, table of faults, and the clean readings.

    Raises
    ------
    ValueError
        If an argument is out of range, or the faults do not fit into the stream.

    Examples
    --------
    >>> stream = make_sensor_stream(random_state=0)
    >>> stream.readings.shape, int(stream.labels["load_pct"].iloc[:1344].sum())
    ((2688, 5), 0)
    """
    step = _step_hours(freq)
    _check_whole(n_readings=n_readings, n_faults=n_faults)
    first = _first_faulty(n_readings, fault_free=fault_free, n_faults=n_faults)
    _check_missing(missing)
    clean_rng, fault_rng, missing_rng = np.random.default_rng(random_state).spawn(3)

    clean = _run_machine(clean_rng, hours=np.arange(n_readings, dtype=np.float64) * step, step=step)
    faults = plan_faults(
        fault_rng, n_faults=n_faults, n_channels=len(CHANNELS), start=first, stop=n_readings
    )
    faulty = insert_faults(clean, faults=faults, half_day=round(12 / step))
    faulty[_draw_missing(missing_rng, shape=clean.shape, rate=missing)] = np.nan
    return _assemble(clean, faulty=faulty, faults=faults, freq=freq)


def _step_hours(freq: str) -> float:
    try:
        offset = to_offset(freq)
    except (TypeError, ValueError):
        offset = None
    hours = pd.Timedelta(offset) / pd.Timedelta(hours=1) if isinstance(offset, Tick) else 0.0
    if not 0 < hours <= 12:
        raise ValueError(
            f"`freq` must be a fixed step of at most 12 hours, got {freq!r}; use 'h' or '5min'."
        )
    return hours


def _check_whole(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, Integral):
            raise ValueError(f"`{name}` must be a whole number, got {count!r}; use int(...).")


def _first_faulty(n_readings: int, *, fault_free: float, n_faults: int) -> int:
    if n_readings < 1:
        raise ValueError(f"`n_readings` must be at least 1, got {n_readings}; use 168 for a week.")
    if not 0 <= fault_free < 1:
        raise ValueError(
            f"`fault_free` must be from 0 to below 1, got {fault_free}; use 0.5 for one half."
        )
    first = int(np.ceil(n_readings * fault_free))
    room = (n_readings - first) // SLOT_MINIMUM
    if not 0 <= n_faults <= room:
        raise ValueError(
            f"`n_faults` must be from 0 to {room} (one in {SLOT_MINIMUM} readings after "
            f"`fault_free`), got {n_faults}; raise `n_readings` or lower `fault_free` to fit more."
        )
    return first


def _check_missing(missing: float) -> None:
    if not 0 <= missing <= 0.5:
        raise ValueError(
            f"`missing` must be a share from 0 to 0.5, got {missing}; use 0.01 for one in 100."
        )


def _run_machine(rng: np.random.Generator, *, hours: _Array, step: float) -> _Array:
    batch, wander, weather, sway, sensor = rng.spawn(5)
    load = _load(hours, batch=batch, wander=_wander(wander, hours=hours, step=step, tau=6.0))
    rise = _lag(38.0 * (load / 100) ** 2, step=step, tau=3.0)
    ambient = 18 + 4 * np.sin(2 * np.pi * (hours - 9) / 24)
    ambient += 3 * _wander(weather, hours=hours, step=step, tau=60.0)
    wear = 1 - np.exp(-hours / (24 * 180))
    regulation = 0.08 * _wander(sway, hours=hours, step=step, tau=2.0)
    signals = (
        load,
        np.hypot(14.0, 0.62 * load),
        ambient + rise + 6.0 * wear,
        1.2 + 0.02 * load + 0.8 * wear,
        7.2 - 0.012 * load + regulation,
    )
    return np.column_stack(signals) + _NOISE * sensor.standard_normal((hours.size, len(signals)))


def _load(hours: _Array, *, batch: np.random.Generator, wander: _Array) -> _Array:
    hour = hours % 24
    shift = (np.tanh(hour - 6) - np.tanh((hour - 20) / 1.5)) / 2
    activity = shift * np.where(hours // 24 % 7 >= 5, 0.35, 1.0)
    # The phase drifts by about a fifth of a cycle in a day, so batches cannot be extrapolated.
    slip = np.sqrt(np.diff(hours, prepend=0.0)) * batch.standard_normal(hours.size)
    phase = 2 * np.pi * hours / 5 + 0.25 * np.cumsum(slip)
    return np.clip(30 + 42 * activity + 6 * activity * np.sin(phase) + 4 * wander, 5.0, 110.0)


def _wander(rng: np.random.Generator, *, hours: _Array, step: float, tau: float) -> _Array:
    """Autocorrelated noise of unit variance that forgets within `tau` hours."""
    keep = np.exp(-step / tau)
    shocks = rng.standard_normal(hours.size)
    shocks[1:] *= np.sqrt((1 + keep) / (1 - keep))
    return _lag(shocks, step=step, tau=tau)


def _lag(signal: _Array, *, step: float, tau: float) -> _Array:
    """First-order lag: what a body of time constant `tau` hours makes of the signal."""
    smooth = pd.Series(signal).ewm(alpha=-np.expm1(-step / tau), adjust=False).mean()
    return smooth.to_numpy(dtype=np.float64)


def _draw_missing(
    rng: np.random.Generator, *, shape: tuple[int, ...], rate: float
) -> NDArray[np.bool_]:
    # Singles and bursts each spare sqrt(1 - rate): they fall together, and so do bursts, yet the
    # share lost to either is the rate.
    lost = rng.random(shape) < 1 - np.sqrt(1 - rate)
    # The mean length of a burst is half the sum of its bounds.
    starts = rng.integers(shape[0], size=round(-np.log1p(-rate) * shape[0] / sum(_BURST)))
    lengths = rng.integers(*_BURST, endpoint=True, size=starts.size)
    for start, length in zip(starts, lengths, strict=True):
        lost[start : start + length] = True
    return lost


def _assemble(clean: _Array, *, faulty: _Array, faults: list[Fault], freq: str) -> SensorStream:
    index = pd.date_range(_START, periods=len(clean), freq=freq, unit="ns", name="date")
    names = list(CHANNELS)
    labels = np.zeros(clean.shape, dtype=bool)
    for fault in faults:
        labels[fault.start : fault.stop, fault.channel] = True
    return SensorStream(
        readings=pd.DataFrame(faulty, index=index, columns=names),
        labels=pd.DataFrame(labels, index=index, columns=names),
        faults=_tabulate(faults, index=index),
        clean=pd.DataFrame(clean, index=index, columns=names),
    )


def _tabulate(faults: list[Fault], *, index: pd.DatetimeIndex) -> pd.DataFrame:
    names = list(CHANNELS)
    return pd.DataFrame(
        {
            "start": index[[fault.start for fault in faults]],
            "end": index[[fault.stop - 1 for fault in faults]],
            "kind": pd.Series([fault.kind for fault in faults], dtype="str"),
            "channel": pd.Series([names[fault.channel] for fault in faults], dtype="str"),
        }
    )
