"""Streams of a detector: one raw reading in, a verdict out. Needs numpy and onnxruntime only.

The graph forecasts the innovations that the stages in front of it leave (`xlstm_ts.anomaly`); these
stages, tails and events run here, from what the file carries as JSON under the key
`xlstm_ts_detector`.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.anomaly.budgets import Contamination, find_alpha
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.records import read_record
from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import DETECTOR_KEY
from xlstm_ts.files import content_of
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.models import StreamModel
from xlstm_ts.streaming.readings import read_reading
from xlstm_ts.streaming.sessions import called
from xlstm_ts.streaming.snapshots import Snapshot, read_snapshot, write_snapshot
from xlstm_ts.streaming.streams import Stream
from xlstm_ts.streaming.times import NEVER, Time, moment_after, read_times

NOTHING_AHEAD = np.empty((1, 0))  # the readings beside innovations are known up to now
MODEL, HOST = "model/", "host/"  # in snapshots


class InnovationModel(StreamModel):
    """The graph inside a detector."""

    _is_inner = True


class DetectorModel:
    """A loaded detector: what all its streams share.

    Parameters
    ----------
    path : path-like
        A file that `xlstm_ts.export.detectors.export_detector` wrote.
    threads : int, default=1
        Threads inside one step.

    Attributes
    ----------
    model : StreamModel
        The graph.
    channels : tuple of str
        Names of the channels of a reading, in order.

    Raises
    ------
    StreamError
        Where the file is no graph of a detector.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.model = InnovationModel(path, threads=threads)
        texts = self.model.session.get_modelmeta().custom_metadata_map
        if DETECTOR_KEY not in texts:
            raise StreamError(
                f"{os.fspath(path)} holds a forecaster and no detector: load it with StreamModel, "
                "or write one with `export_detector`."
            )
        self.channels = self.model.contract.channels
        with content_of(called(path), kind="graph of a detector", error=StreamError):
            self._host, self._seconds = read_record(json.loads(texts[DETECTOR_KEY]))
            if self._host.n_channels != len(self.channels):
                raise ValueError("its stages are of other channels")

    def create_stream(self) -> DetectorStream:
        """Return a stream that has seen nothing; its state is its own."""
        return DetectorStream(self.model, self._host.fresh(), seconds=self._seconds)

    def set_budget(
        self,
        *,
        alarms_per_day: float | None = None,
        alpha: float | None = None,
        contamination: Contamination | None = None,
    ) -> None:
        """Change the budget of streams that are yet to be created, as in `XLSTMAnomalyDetector`."""
        self._host.alpha = find_alpha(
            alarms_per_day=alarms_per_day,
            alpha=alpha,
            contamination=contamination,
            seconds=self._seconds,
        )


class DetectorStream:
    """One sequence of readings and the state it has left behind.

    Parameters
    ----------
    model : StreamModel
        The loaded graph.
    host : AnomalyHost
        The stages around it; the stream keeps them.
    seconds : float or None
        Length of the step; None where readings are counted.

    Attributes
    ----------
    filled : int
        Stamps that were left out before the last reading, and taken as missing ones.
    """

    def __init__(self, model: StreamModel, host: AnomalyHost, *, seconds: float | None) -> None:
        self.host, self._contract, self._seconds = host, model.contract, seconds
        self._stream = Stream(model)
        self._steps, self._last, self._untold = Steps(model.contract), NEVER, 0
        self.filled = 0
        levels = len(model.contract.quantiles)
        self._quantiles: NDArray[Any] = np.full((host.n_channels, levels), np.nan)

    def step(self, reading: ArrayLike, *, time: Time | None = None) -> Verdict:
        """Take one raw reading and judge it.

        Parameters
        ----------
        reading : array-like of float, shape (channels,)
            One value a channel in raw units, in the order of the channels; NaN is missing. A single
            channel may come as a plain number. What names its channels, as a mapping or a row of a
            frame does, goes by the names.
        time : str, datetime or datetime64, optional
            The time of the reading, as the clock on the wall shows it or with a zone. Stamps that
            are left out since the time before are taken as missing readings first, each to the
            nearest step, and counted in `filled`; they cost a step each. Without times give NaN.

        Raises
        ------
        StreamError
            Where it has another number of channels, is no number, or `time` is not after that of
            the reading before; the state is then as before.
        """
        values, count = read_reading(reading, self._contract.channels), 0
        if time is not None:
            zone = self._contract.zone
            told = read_times(time, zone=zone, is_calendar=False)
            moment = moment_after(told, self._last, zone=zone)
            count = self._steps.left_out(moment, self._last, self._untold)
            self._last, self._untold = moment, 0
        else:
            self._untold += 1
        for _ in range(count):
            self._take([math.nan] * len(values))
        self.filled = count
        return self._take(values)

    def _take(self, values: list[float]) -> Verdict:
        innovation = self.host.whitening.step(np.array(values))
        verdict = self.host.judge_one(innovation, self._quantiles)
        output = self._stream.step_columns(innovation.seen, innovation.seen_value, NOTHING_AHEAD)
        self._quantiles = output.quantiles[0].astype(np.float64)
        return verdict

    def set_budget(
        self,
        *,
        alarms_per_day: float | None = None,
        alpha: float | None = None,
        contamination: Contamination | None = None,
    ) -> None:
        """Change the budget of this stream alone, as in `XLSTMAnomalyDetector`."""
        self.host.alpha = find_alpha(
            alarms_per_day=alarms_per_day,
            alpha=alpha,
            contamination=contamination,
            seconds=self._seconds,
        )

    def acknowledge(self) -> None:
        """Close the open event; its level is the new normal."""
        self.host.acknowledge()

    def snapshot(self, path: str | os.PathLike[str], *, offset: Any = None) -> None:
        """Write the state to a file, whole or not at all, as `Stream.snapshot` does."""
        arrays = {f"{MODEL}{name}": array for name, array in self._stream.state.items()}
        arrays |= {f"{HOST}{name}": array for name, array in self.host.state_dict().items()}
        arrays["quantiles"] = self._quantiles
        content = {"alpha": self.host.alpha, "last": self._last, "untold": self._untold}
        snapshot = Snapshot(offset, content, arrays)
        write_snapshot(path, snapshot, contract=self._contract, kind="detector")

    def restore(self, path: str | os.PathLike[str]) -> Any:
        """Go on from a snapshot, to the bit and with its budget; return its offset."""
        offset, content, arrays = read_snapshot(path, contract=self._contract, kind="detector")
        host, model = (
            {name[len(part) :]: array for name, array in arrays.items() if name.startswith(part)}
            for part in (HOST, MODEL)
        )
        self.host.load_state_dict(host)
        self._stream.state = model
        self._quantiles, self.host.alpha = arrays["quantiles"], content["alpha"]
        self._last, self._untold, self.filled = content["last"], content["untold"], 0
        return offset
