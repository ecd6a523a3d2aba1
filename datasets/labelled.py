"""Fetch recordings of many sensors whose anomalies are labelled: servers, and a loop of water."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from xlstm_ts.datasets.registry import find_dataset
from xlstm_ts.datasets.store import PathLike, locate


class ASDServer(NamedTuple):
    """A server of the Application Server Dataset.

    Attributes
    ----------
    train : pd.DataFrame of shape (8640, 19), float64
        Thirty days without labels, one row every 5 minutes, counted from 0.
    test : pd.DataFrame of shape (4320, 19), float64
        The fifteen days that follow; its index counts on.
    label : pd.Series of bool
        True where a row of `test` is anomalous.
    events : pd.DataFrame
        One row per anomaly: `start` and `end` (labels of `test`, both anomalous) and `channels`
        (the columns in which it shows, a tuple).
    """

    train: pd.DataFrame
    test: pd.DataFrame
    label: pd.Series
    events: pd.DataFrame


class SKABRun(NamedTuple):
    """A run of the Skoltech Anomaly Benchmark.

    Attributes
    ----------
    readings : pd.DataFrame, float64
        Eight sensors of a loop of water, on a `DatetimeIndex` named "datetime".
    anomaly, changepoint : pd.Series of bool
        True where a row is anomalous, and where the state of the loop changes.
    """

    readings: pd.DataFrame
    anomaly: pd.Series
    changepoint: pd.Series


def fetch_asd(name: str = "omi-1", *, data_home: PathLike | None = None) -> ASDServer:
    """Fetch a server with 19 metrics and the channels of each of its anomalies.

    Parameters
    ----------
    name : {"omi-1", ..., "omi-6"}, default "omi-1"
        The server.
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    ASDServer
        The two parts, the labels of the second, and its events.

    Raises
    ------
    ValueError
        If there is no server of this name.
    SeriesError
        If a file in the data folder is not the expected one.
    OSError
        If a file is missing and cannot be had.

    Notes
    -----
    Columns are numbered from 0, where the publisher counts from 1. The readings are published as
    pickles, which may run code when they are read, so none is opened here. From the three of a
    server, `omi-1.npz` is made by ::

        np.savez_compressed("omi-1.npz", train=train, test=test, label=label.astype(np.int8))

    Licence MIT, source https://github.com/zhhlee/InterFusion.
    """
    readings_path, events_path = locate(find_dataset("asd", name=name), data_home=data_home)
    with np.load(readings_path) as parts:
        train = pd.DataFrame(parts["train"].astype(np.float64))
        test = pd.DataFrame(parts["test"].astype(np.float64))
        label = parts["label"].astype(bool)
    test.index = pd.RangeIndex(len(train), len(train) + len(test))
    return ASDServer(
        train=train,
        test=test,
        label=pd.Series(label, index=test.index, name="label"),
        events=_read_events(events_path, first=len(train)),
    )


def fetch_skab(name: str = "valve1/0", *, data_home: PathLike | None = None) -> SKABRun:
    """Fetch a run of the testbed, once each second.

    Parameters
    ----------
    name : {"valve1/0", ..., "valve1/15", "anomaly-free"}, default "valve1/0"
        The run: the valve behind the pump is closed for a while, or nothing happens.
    data_home : path-like, optional
        Data folder; by default `$XLSTM_TS_DATA`, else the user's cache.

    Returns
    -------
    SKABRun
        Readings and labels.

    Raises
    ------
    ValueError
        If there is no run of this name.
    SeriesError
        If the file in the data folder is not the published one.
    OSError
        If the file is missing and cannot be downloaded.

    Notes
    -----
    Stamps are returned as published; now and then a second is left out. Licence GPL-3.0, source
    https://github.com/waico/SKAB: no file of it is part of this package.
    """
    (path,) = locate(find_dataset("skab", name=name), data_home=data_home)
    # Not every pandas parses a number from a file to the nearest float64; astype does.
    table = pd.read_csv(path, sep=";", index_col="datetime", dtype=str).astype("float64")
    table.index = pd.DatetimeIndex(pd.to_datetime(table.index), name="datetime").as_unit("ns")
    labels = table.reindex(columns=["anomaly", "changepoint"], fill_value=0.0).astype(bool)
    return SKABRun(
        readings=table.drop(columns=list(labels.columns), errors="ignore"),
        anomaly=labels["anomaly"],
        changepoint=labels["changepoint"],
    )


def _read_events(path: Path, *, first: int) -> pd.DataFrame:
    rows = []
    for line in path.read_text(encoding="utf-8").split():
        span, channels = line.split(":")
        start, end = (first + int(row) for row in span.split("-"))
        rows.append((start, end, tuple(int(channel) - 1 for channel in channels.split(","))))
    return pd.DataFrame(rows, columns=["start", "end", "channels"])
