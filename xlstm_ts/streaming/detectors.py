"""Streams of a detector: one raw reading in, a verdict out. Needs numpy and onnxruntime only.

The graph forecasts the innovations that the stages in front of it leave (`xlstm_ts.anomaly`); these
stages, tails and events run here, from what the file carries as JSON under the key
`xlstm_ts_detector`.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.anomaly.budgets import Contamination, find_alpha
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.records import read_record
from xlstm_ts.anomaly.verdicts import Verdict
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import DETECTOR_KEY, Contract
from xlstm_ts.files import content_of
from xlstm_ts.streaming.gaps import Steps
from xlstm_ts.streaming.models import StreamModel
from xlstm_ts.streaming.readings import read_reading
from xlstm_ts.streaming.sensors import Sensors
from xlstm_ts.streaming.sessions import Graph, called
from xlstm_ts.streaming.snapshots import Place, Snapshot, read_snapshot, write_snapshot
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
    contract : Contract
        What the graph says of itself, without the columns that it is fed in here.
    alpha : float
        Share of readings that may be in alarm in streams that are yet to be created.

    Raises
    ------
    StreamError
        Where the file is no graph of a detector.
    """

    def __init__(self, path: Graph, *, threads: int = 1) -> None:
        self.model = InnovationModel(path, threads=threads)
        texts = self.model.session.get_modelmeta().custom_metadata_map
        if DETECTOR_KEY not in texts:
            raise StreamError(
                f"{called(path)} holds a forecaster and no detector: load it with StreamModel, "
                "or write one with `export_detector`."
            )
        self.contract: Contract = replace(self.model.contract, columns=())
        self.channels = self.contract.channels
        with content_of(called(path), kind="graph of a detector", error=StreamError):
            self._host, self._seconds = read_record(json.loads(texts[DETECTOR_KEY]))
            if self._host.n_channels != len(self.channels):
                raise ValueError("its stages are of other channels")

    @property
    def alpha(self) -> float:
        """Share of readings that may be in alarm."""
        return self._host.alpha

    @property
    def seconds(self) -> float | None:
        """Length of the step; None where readings are counted."""
        return self._seconds

    @property
    def longest_memory(self) -> int:
        """Missing readings in a row after which one more changes nothing but counts."""
        return self._host.longest_memory

    @property
    def warm_up(self) -> int:
        """Readings of a stream that are not judged, the first ones."""
        return self._host.config.warm_up

    def create_stream(self) -> DetectorStream:
        """Return a stream that has seen nothing; its state is its own."""
        return DetectorStream(self.model, self._host.fresh(), seconds=self._seconds)

    def create_sensors(self, capacity: int) -> Sensors:
        """Return the stages of so many streams, for a pool."""
        levels = len(self.model.contract.quantiles)
        return Sensors(self._host, levels=levels, capacity=capacity)

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


def open_model(path: Graph, *, threads: int = 1) -> StreamModel | DetectorModel:
    """Load whichever of the two a file holds; raises as they do."""
    texts = InnovationModel(path, threads=threads).session.get_modelmeta().custom_metadata_map
    kind = DetectorModel if DETECTOR_KEY in texts else StreamModel
    return kind(path, threads=threads)


class Kept(NamedTuple):
    """What a stream of a detector has left behind: what JSON can hold, and arrays."""

    content: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


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
    last : int
        The moment of the last reading that told one.
    """

    def __init__(self, model: StreamModel, host: AnomalyHost, *, seconds: float | None) -> None:
        self.host, self._contract, self._seconds = host, model.contract, seconds
        self._stream = Stream(model)
        self._steps, self.last, self._untold = Steps(model.contract), NEVER, 0
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
            nearest step, and counted in `filled`; the first thousands cost a step each. Without
            times give NaN.

        Raises
        ------
        StreamError
            Where it has another number of channels, is no number, or `time` is not after that of
            the reading before; the state is then as before.
        """
        values, moment = read_reading(reading, self._contract.channels), None
        if time is not None:
            zone = self._contract.zone
            told = read_times(time, zone=zone, is_calendar=False)
            moment = moment_after(told, self.last, zone=zone)
        return self.advance(values, moment)

    def advance(self, values: Sequence[float], moment: int | None) -> Verdict:
        """Take a reading that was read; its moment, where known, is after that of the one before.

        Parameters
        ----------
        values : sequence of float, length channels
            NaN is missing.
        moment : int or None
            The time, in microseconds as `xlstm_ts.streaming.times` has it.
        """
        self.filled = 0
        if moment is None:
            self._untold += 1
        else:
            self.filled = self._steps.left_out(moment, self.last, self._untold)
            self.last, self._untold = moment, 0
        stepped = min(self.filled, self.host.longest_memory)
        for _ in range(stepped):
            self._take([math.nan] * len(values))
        self.host.pass_over(self.filled - stepped)
        return self._take(values)

    def _take(self, values: Sequence[float]) -> Verdict:
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

    def snapshot(self, path: Place, *, offset: Any = None) -> None:
        """Write the state to a file, whole or not at all, as `Stream.snapshot` does."""
        snapshot = Snapshot(offset, *self.kept())
        write_snapshot(path, snapshot, contract=self._contract, kind="detector")

    def restore(self, path: Place) -> Any:
        """Go on from a snapshot, to the bit and with its budget; return its offset."""
        offset, *kept = read_snapshot(path, contract=self._contract, kind="detector")
        with content_of("The snapshot", kind="snapshot of a detector", error=StreamError):
            self.go_on(Kept(*kept))
        return offset

    def kept(self) -> Kept:
        """Return all that is needed to go on."""
        arrays = {f"{MODEL}{name}": array for name, array in self._stream.state.items()}
        arrays |= {f"{HOST}{name}": array for name, array in self.host.state_dict().items()}
        arrays["quantiles"] = self._quantiles
        return Kept({"alpha": self.host.alpha, "last": self.last, "untold": self._untold}, arrays)

    def go_on(self, kept: Kept) -> None:
        """Go on from what `kept` gave, to the bit and with its budget; to raise changes nothing."""
        content, arrays = kept
        last, untold = int(content["last"]), int(content["untold"])
        host, quantiles = copy.deepcopy(self.host), arrays["quantiles"].astype(np.float64)
        host.load_state_dict(_part(arrays, HOST))
        host.alpha = find_alpha(alpha=content["alpha"])
        if quantiles.shape != self._quantiles.shape:
            raise ValueError(f"its quantiles have shape {quantiles.shape}")
        self._stream.state = _part(arrays, MODEL)  # the last that can be refused
        self.host, self._quantiles = host, quantiles
        self.last, self._untold, self.filled = last, untold, 0


def _part(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {one[len(name) :]: array for one, array in arrays.items() if one.startswith(name)}
