"""Streams on Ray: an actor for each shard of the keys, with its own snapshots and replay.

    pip install 'xlstm-ts[ray,onnx]'
    python examples/ray_actors.py model.onnx

Ray restarts an actor whose process died, but not its memory. So each actor writes a snapshot of its
pool now and then, with how many calls it has taken; a new one goes on from there, and is given the
calls since then again. The pool gives the same bits for the same calls: what is computed twice is
equal, and replaces what was there. On more than one machine `folder` must be one that all of them
see. In the middle of this run one actor is killed, and at its end all outputs are held against
those of pools that were never killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.streaming import StreamModel, StreamPool

EVERY = 20  # calls between two snapshots
AT_ONCE = 10  # calls that are sent to an actor together
Array = NDArray[np.float32]


class Shard:
    """The pool of some keys, where it keeps its snapshot, and how many calls it has taken."""

    def __init__(self, graph: bytes, keys: Sequence[str], snapshot: str) -> None:
        self._pool, self._keys, self._snapshot = StreamPool(StreamModel(graph)), keys, snapshot
        self._taken = self._pool.restore(snapshot) if os.path.exists(snapshot) else 0
        self._kept = self._taken

    def taken(self) -> int:
        """Return how many calls the state has seen: those after them are to be given again."""
        return self._taken

    def step(self, readings: Array, *, start: int) -> Array:
        """Take calls `(calls, keys, channels)`, of which the first is number `start`.

        Who sends these has the outputs of all before them, so the snapshot may hold what they left.
        """
        if start != self._taken:
            raise ValueError(f"Call {self._taken} is next, got {start}.")
        if self._taken - self._kept >= EVERY:
            self._pool.snapshot(self._snapshot, offset=self._taken)
            self._kept = self._taken
        given = []
        for rows in readings:
            outputs = self._pool.step(dict(zip(self._keys, rows, strict=True)))
            given.append(np.stack([output.quantiles for output in outputs.values()]))
            self._taken += 1
        return np.stack(given)

    def process(self) -> int:
        """Return the number of the process."""
        return os.getpid()


def run(ray: Any, actors: list[Any], readings: list[Array], *, kill_at: int) -> list[Array]:
    """Send all readings to their actors; return the outputs, each once and none missing."""
    length = len(readings[0])
    given: list[dict[int, Array]] = [{} for _ in actors]
    sent = [0] * len(actors)
    while any(one < length for one in sent):
        if kill_at in range(max(sent), max(sent) + AT_ONCE):
            os.kill(ray.get(actors[0].process.remote()), signal.SIGKILL)
            kill_at = -1
        asked = {
            place: actor.step.remote(readings[place][start : start + AT_ONCE], start=start)
            for place, (actor, start) in enumerate(zip(actors, sent, strict=True))
            if start < length
        }
        for place, answer in asked.items():
            try:
                outputs = ray.get(answer)
            except ray.exceptions.RayActorError:
                sent[place] = _again(ray, actors[place])
                print(f"actor {place} died, and goes on at call {sent[place]}")
                continue
            given[place] |= dict(enumerate(outputs, sent[place]))
            sent[place] += len(outputs)
    return [np.stack([outputs[call] for call in range(length)]) for outputs in given]


def _again(ray: Any, actor: Any) -> int:
    """Return where an actor that Ray restarts goes on, as soon as it is there."""
    for _ in range(300):
        try:
            return int(ray.get(actor.taken.remote()))
        except ray.exceptions.RayActorError:
            time.sleep(0.1)
    raise RuntimeError("The actor did not come back.")


def main() -> int:
    """Stream simulated readings through actors, one of which is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="step graph, written by export_onnx")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    try:
        import ray
    except ImportError as err:
        raise SystemExit("This example needs Ray: pip install 'xlstm-ts[ray]'.") from err
    graph = options.model.read_bytes()
    shards: list[list[str]] = [[] for _ in range(options.actors)]
    for key in (f"pump {number}" for number in range(options.keys)):
        shards[crc32(key.encode()) % options.actors].append(key)
    rng, channels = np.random.default_rng(0), len(StreamModel(graph).contract.channels)
    readings = [
        rng.standard_normal((options.calls, len(keys), channels)).astype(np.float32)
        for keys in shards
    ]
    ray.init(num_cpus=options.actors, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_restarts=-1)(Shard)
    with tempfile.TemporaryDirectory() as folder:
        # Large arguments of a constructor have to outlive it: a restart needs them again.
        stored = ray.put(graph)
        actors = [
            remote.remote(stored, keys, f"{folder}/{place}") for place, keys in enumerate(shards)
        ]
        ray.get([actor.taken.remote() for actor in actors])
        begin = time.perf_counter()
        given = run(ray, actors, readings, kill_at=options.calls // 2)
        seconds = time.perf_counter() - begin
        alone = [Shard(graph, keys, f"{folder}/none") for keys in shards]
        expected = [pool.step(rows, start=0) for pool, rows in zip(alone, readings, strict=True)]
    ray.shutdown()
    pairs = zip(given, expected, strict=True)
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    print(f"{options.keys * options.calls / seconds:.0f} readings in a second, one death included")
    print(f"difference {difference:g}")
    return int(difference != 0)


if __name__ == "__main__":
    sys.exit(main())
