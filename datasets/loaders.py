"""Fetch published series, checked against their checksums and kept on disk.

Values and stamps are returned as published, with their gaps and faults; the notes of each fetcher
name them. Where the files come from and where they are kept: `registry` and `store`.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from xlstm_ts.datasets.registry import find_dataset
from xlstm_ts.datasets.store import PathLike, locate


class NABSeries(NamedTuple):
    """A series of the Numenta Anomaly Benchmark with its labelled windows.

    Attributes
    ----------
    series : pd.Series, float64
        The readings in the order of the file, on a `DatetimeIndex` named "timestamp".
    windows : pd.DataFrame
        One row per labelled anomaly: columns `start` and `end`, both inside the window.
    """

    series: pd.Series
    windows: pd.DataFrame


class M4Panel(NamedTuple):
    """The two parts of an M4 panel, as long frames.

    Attributes
    ----------
    train, test : pd.DataFrame
        Columns `unique_id` (str), `ds` (int64, 1 for the first reading of a series; `test` counts
        on where `train` ends) and `y` (float64, in the unit of each series, which M4 withholds).
    """

    train: pd.DataFrame
    test: pd.DataFrame


def fetch_ett(name: str = "ETTh1", *, data_home: PathLike | None = None) -> pd.DataFrame:
    """Fetch electricity transformer readings: six loads and the oil temperature.

    Parameters
    ----------
    name : {"ETTh1"}, default "ETTh1"
        The transformer and step.
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    pd.DataFrame of shape (17420, 7), float64
        Columns HUFL, HULL, MUFL, MULL, LUFL, LULL (high, middle and low load, useful and useless)
        and OT (oil temperature, degrees Celsius), hourly from 2016-07-01 00:00 without a gap; the
        index is named "date" and has the frequency "h".

    Raises
    ------
    ValueError
        If there is no data set of this name.
    SeriesError
        If the file in the data folder is not the published one.
    OSError
        If the file is missing and cannot be downloaded.

    Notes
    -----
    Licence CC BY-ND 4.0, source https://github.com/zhouhaoyi/ETDataset.
    """
    dataset = find_dataset("ett", name=name)
    (path,) = locate(dataset, data_home=data_home)
    return _read_wide(path, index="date", freq=dataset.freq)


def fetch_weather(*, data_home: PathLike | None = None) -> pd.DataFrame:
    """Fetch a year of the Jena weather station, one row every 10 minutes.

    Parameters
    ----------
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    pd.DataFrame of shape (52696, 21), float64
        Columns named with their units, from 2020-01-01 00:10 to 2021-01-01 00:00; the index is
        named "date". The last column, OT, is the target of the benchmarks.

    Raises
    ------
    SeriesError
        If the file in the data folder is not the published one.
    OSError
        If the file is missing and cannot be downloaded.

    Notes
    -----
    The values are those of the file, faults included: the index has no frequency, because
    2020-05-12 06:00 stands twice (equal rows) and nine rows are missing before 2020-05-29 11:10;
    -9999 marks a failed reading in "wv (m/s)" (1), "max. PAR" (30) and OT (50). The long-horizon
    benchmarks score this file as it is. To have a regular series with gaps instead::

        clean = weather[~weather.index.duplicated()].asfreq("10min").replace(-9999.0, np.nan)

    In the published header three units have lost their non-ASCII signs; they are restored here
    (W/m\u00b2 and \u00b5mol/m\u00b2/s).
    """
    dataset = find_dataset("weather", name="weather")
    (path,) = locate(dataset, data_home=data_home)
    frame = _read_wide(path, index="date", freq=dataset.freq)
    return frame.rename(columns=_restore_unit)


def fetch_nab(name: str = "nyc_taxi", *, data_home: PathLike | None = None) -> NABSeries:
    """Fetch a series of the Numenta Anomaly Benchmark whose anomalies have a known cause.

    Parameters
    ----------
    name : str, default "nyc_taxi"
        A file of `realKnownCause`, without its ending.
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    NABSeries
        The series, named `name`, and its labelled windows.

    Raises
    ------
    ValueError
        If there is no series of this name.
    SeriesError
        If a file in the data folder is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Notes
    -----
    Stamps are local clock times and are returned as published. Only "nyc_taxi" (30 minutes) and
    "cpu_utilization_asg_misconfiguration" (5 minutes) are regular and carry a frequency. In
    "ec2_request_latency_system_failure" twelve readings share the stamp 2014-03-09 03:00 (the
    clock change); in "machine_temperature_system_failure" the hour from 2014-01-07 02:00 stands
    twice, so its index is not sorted; the other three have gaps.

    Licence MIT, source https://github.com/numenta/NAB.
    """
    dataset = find_dataset("nab", name=name)
    series_path, windows_path = locate(dataset, data_home=data_home)
    series = _read_wide(series_path, index="timestamp", freq=dataset.freq)["value"].rename(name)
    return NABSeries(series=series, windows=_read_windows(windows_path, name=name))


def fetch_m4(name: str = "Hourly", *, data_home: PathLike | None = None) -> M4Panel:
    """Fetch a panel of the M4 competition, split as in the competition.

    Parameters
    ----------
    name : {"Hourly"}, default "Hourly"
        The frequency.
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    M4Panel
        "Hourly": 414 series of 700 or 960 readings, and the 48 readings that follow each.

    Raises
    ------
    ValueError
        If there is no panel of this name.
    SeriesError
        If a file in the data folder is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Notes
    -----
    Source https://github.com/Mcompetitions/M4-methods.
    """
    train_path, test_path = locate(find_dataset("m4", name=name), data_home=data_home)
    train, test = _read_table(train_path), _read_table(test_path)
    return M4Panel(
        train=_to_long(train, past=pd.Series(0, index=train.index)),
        test=_to_long(test, past=train.notna().sum(axis="columns")),
    )


def _read_table(path: Path) -> pd.DataFrame:
    # Not every pandas parses a number from a file to the nearest float64; astype does.
    return pd.read_csv(path, index_col=0, dtype=str).astype("float64")


def _read_wide(path: Path, *, index: str, freq: str | None) -> pd.DataFrame:
    frame = _read_table(path)
    stamps = pd.DatetimeIndex(pd.to_datetime(frame.index, format="%Y-%m-%d %H:%M:%S"), name=index)
    frame.index = stamps.as_unit("ns")
    # Setting a frequency checks it against every stamp.
    return frame if freq is None else frame.set_axis(pd.DatetimeIndex(frame.index, freq=freq))


def _restore_unit(column: str) -> str:
    return column.replace("m\ufffd", "m\u00b2").replace("\ufffdmol", "\u00b5mol")


def _read_windows(path: Path, *, name: str) -> pd.DataFrame:
    labels = json.loads(path.read_text(encoding="utf-8"))
    windows = pd.DataFrame(labels[f"realKnownCause/{name}.csv"], columns=["start", "end"])
    return windows.astype("datetime64[ns]")


def _to_long(rows: pd.DataFrame, *, past: pd.Series) -> pd.DataFrame:
    present = rows.notna().to_numpy()
    # A series fills its row from the left, so a column is a position.
    position = past.loc[rows.index].to_numpy()[:, None] + np.arange(1, rows.shape[1] + 1)
    return pd.DataFrame(
        {
            "unique_id": rows.index.repeat(present.sum(axis=1)),
            "ds": position[present].astype(np.int64),
            "y": rows.to_numpy()[present],
        }
    )
