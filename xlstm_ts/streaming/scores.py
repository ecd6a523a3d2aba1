"""Many streams of a detector that tick together, scored as one batch.

A `DetectorPool` keeps a host for each stream, which goes on learning and puts events together.
Where thousands of sensors of one kind give a reading at the same moments and a score is all that is
wanted, the graph of `export_detector(..., scores=path)` takes them all at once, at a fraction of
the time. Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import READING, SCORES_KEY, SCORES_VERSION
from xlstm_ts.files import content_of
from xlstm_ts.streaming.sessions import Graph, bind, called, open_scores, tensor

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = slice | NDArray[Any] | list[int] | int
ALL = slice(None)


class Scores(NamedTuple):
    """What a batch of readings is judged to be, a row for each stream.

    Attributes
    ----------
    score : ndarray of float64, shape (streams,)
        -log10 p; 0 where there is nothing to judge.
    alarm : ndarray of bool, shape (streams,)
        Whether the score has reached the threshold, a level was left, or a sensor is stuck.
    contributions : ndarray of float64, shape (streams, channels)
        Shares of the channels in the score.
    slow, stuck : ndarray of float64, shape (streams, channels)
        How far a channel has left its level, 1 at the limit; 1 where it stands still.
    judged : ndarray of float64, shape (streams, channels)
        0 in the first readings, after long gaps, and where a reading is missing.
    expected, width : ndarray of float64, shape (streams, channels)
        What was expected, and the scale of errors, in raw units.
    surprises : ndarray of float64, shape (streams, 5)
        -log10 p by each view: point, range, level, recent, relation.
    """

    score: Floats
    alarm: Mask
    contributions: Floats
    slow: Floats
    stuck: Floats
    judged: Floats
    expected: Floats
    width: Floats
    surprises: Floats


class ScoreModel:
    """A loaded graph of scores: what all batches share.

    Parameters
    ----------
    path : path-like or bytes
        A file that `export_detector(..., scores=path)` wrote, or what is in it.
    threads : int, default=1
        Threads inside one step.

    Attributes
    ----------
    channels : tuple of str
        Names of the channels of a reading, in order.
    threshold : float
        The score from which a reading is in alarm; may be set, for batches that are yet to come.

    Raises
    ------
    StreamError
        Where the file is no such graph of a version that this library reads.
    """

    def __init__(self, path: Graph, *, threads: int = 1) -> None:
        check_integer("threads", threads, least=1)
        self.session = open_scores(path, threads=threads)
        texts = self.session.get_modelmeta().custom_metadata_map
        with content_of(called(path), kind="graph of scores", error=StreamError):
            record = json.loads(texts[SCORES_KEY])
            if record["version"] != SCORES_VERSION:
                raise ValueError(
                    f"version {record['version']}, this library reads {SCORES_VERSION}: export it "
                    "again"
                )
            self.channels: tuple[str, ...] = tuple(record["channels"])
            self.threshold = float(record["threshold"])
            self.beside = {one["name"]: _initial(one) for one in record["inputs"]}
            self.start = {one["name"]: _initial(one) for one in record["state"]}
            self.next = {one["name"]: str(one["next"]) for one in record["state"]}
            ScoreBatch(self, 1).step(np.full((1, len(self.channels)), np.nan))

    def create_batch(self, size: int) -> ScoreBatch:
        """Return so many streams that have seen nothing; their state is their own."""
        check_integer("size", size, least=1)
        return ScoreBatch(self, size)


class ScoreBatch:
    """Streams that tick together, and the state that they have left behind.

    Parameters
    ----------
    model : ScoreModel
        The loaded graph.
    size : int
        Streams.

    Attributes
    ----------
    beside : dict of ndarray
        What goes in beside the readings, a row for each stream, and may be written to: `tails`
        `(size, 7, 6)`, and of more than one channel `relation` `(size, channels)`
        (`xlstm_ts.export.scores.beside`).
    threshold : float
        The score from which a reading is in alarm.
    """

    def __init__(self, model: ScoreModel, size: int) -> None:
        self._model, self.size, self.threshold = model, size, model.threshold
        self.beside = {name: _tiled(value, size) for name, value in model.beside.items()}
        self._reading = np.empty((size, len(model.channels)))
        # Two copies of the state, which the graph reads and writes in turn: nothing is copied.
        self._states = [
            {name: _tiled(value, size) for name, value in model.start.items()} for _ in range(2)
        ]
        self._results = {
            one.name: np.empty((size, one.shape[1]))
            for one in model.session.get_outputs()
            if one.name not in model.next.values()
        }
        given = {READING: self._reading, **self.beside}
        self._bindings = [
            bind(
                model.session,
                inputs=_tensors({**given, **before}),
                outputs=_tensors(
                    {**self._results, **{model.next[name]: one for name, one in after.items()}}
                ),
            )
            for before, after in (self._states, self._states[::-1])
        ]
        self._turn = 0

    def step(self, readings: ArrayLike) -> Scores:
        """Take a reading of each stream.

        Parameters
        ----------
        readings : array-like of float, shape (size, channels)
            In raw units, in the order of the channels; NaN is missing, as of a stream that has none
            at this moment, and so is what lies beyond float32. Of one channel the second axis may
            be left out.

        Raises
        ------
        StreamError
            Where the shape is another, or what is given are no numbers; the state is as before.
        """
        try:
            rows: Any = readings if isinstance(readings, list | tuple) else (readings,)
            if any(isinstance(row, np.ma.MaskedArray) for row in rows):
                readings = np.ma.filled(np.ma.array(readings, np.float64), np.nan)
            values = np.asarray(readings, np.float64)
        except (TypeError, ValueError, OverflowError) as err:
            raise StreamError(f"`readings` must be numbers: {err}") from err
        if self._reading.shape[1] == 1 and values.ndim == 1:
            values = values[:, None]
        if values.shape != self._reading.shape:
            raise StreamError(
                f"`readings` must be {self._reading.shape}, a row for each stream and a column for "
                f"each of {', '.join(self._model.channels)}; got {values.shape}."
            )
        self._reading[:] = values
        self._model.session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        found = {name: value.copy() for name, value in self._results.items()}
        score = found.pop("score")[:, 0]
        off = (found["slow"] >= 1) | (found["stuck"] > 0)
        return Scores(score=score, alarm=(score >= self.threshold) | off.any(1), **found)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all that the readings have left behind, by name; may be set."""
        return {name: value.copy() for name, value in self._states[self._turn].items()}

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        own = self._states[self._turn]
        wrong = own.keys() ^ state.keys()
        wrong |= {name for name in own.keys() - wrong if own[name].shape != np.shape(state[name])}
        if wrong:
            raise StreamError(
                f"The state is of another graph, or of another number of streams: it differs in "
                f"{', '.join(sorted(wrong))}."
            )
        for name, value in state.items():
            own[name][:] = value

    def reset(self, streams: Rows = ALL) -> None:
        """Let some streams begin anew, by default all: an index or a mask."""
        for name, start in self._model.start.items():
            rows = self._states[self._turn][name].reshape(self.size, *start.shape)
            rows[streams] = start

    def rebase(self, streams: Rows = ALL) -> None:
        """Take the levels that channels of some streams have come to as their new ones."""
        own = self._states[self._turn]
        since, reference, mean, away = (
            own[f"slow_{name}"] for name in ("since", "reference", "mean", "away")
        )
        level = np.where(away > 0, since, reference)[streams]
        for one in (since, reference, mean):
            one[streams] = level
        for one in (away, own["learning_held"], own["learning_calm"]):
            one[streams] = 0


def _initial(described: Mapping[str, Any]) -> NDArray[Any]:
    values = [math.nan if value is None else value for value in described["initial"]]
    dtype = np.dtype(described["dtype"])
    if dtype.kind != "f":
        raise ValueError(f"an array of it is of {dtype}")
    return np.array(values, dtype).reshape(described["shape"])


def _tiled(value: NDArray[Any], size: int) -> NDArray[Any]:
    return np.concatenate([value] * size)


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: tensor(value) for name, value in arrays.items()}
