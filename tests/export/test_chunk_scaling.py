"""The scaling of a chunk is that of steps, and keeps their digits in float32."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from xlstm_ts.export.builder import Builder
from xlstm_ts.export.chunk_scaling import ChunkScaling, write_scaling
from xlstm_ts.scaling import Scaling, scaling_step

NEXT_TO_NOTHING = 1e-30


def run_chunks(x: np.ndarray, observed: np.ndarray, *, span: float, length: int) -> ChunkScaling:
    """Return the fields at every reading of `(C, T)`, each `(C, T)`, by chunks in float32."""
    channels = len(x)
    g = Builder()
    shape = ("batch", channels, length)
    given = [g.input(name, shape) for name in ("x", "observed")]
    before = ChunkScaling(*(g.input(name, ("batch", channels, 1)) for name in ChunkScaling._fields))
    after = write_scaling(g, *given, before, span=span, length=length)
    for name, value in after._asdict().items():
        g.output(value, f"{name}_next", shape)
    session = ort.InferenceSession(g.model({}).SerializeToString())
    state = {name: np.zeros((1, channels, 1), np.float32) for name in ChunkScaling._fields}
    state["seen"] += np.float32(NEXT_TO_NOTHING)
    pieces = []
    for start in range(0, x.shape[1], length):
        part, marks = (row[None, :, start : start + length] for row in (x, observed))
        fed = {"x": np.where(marks > 0, part, 0), "observed": marks}
        fed = {name: array.astype(np.float32) for name, array in fed.items()}
        pieces.append(session.run(None, {**fed, **state}))
        ends = (array[..., -1:] for array in pieces[-1])
        state = dict(zip(ChunkScaling._fields, ends, strict=True))
    return ChunkScaling(*(np.concatenate(parts, 2)[0] for parts in zip(*pieces, strict=True)))


def run_steps(x: np.ndarray, observed: np.ndarray, *, span: float) -> list[Scaling]:
    """Return the scaling at every reading in float64."""
    values, marks = torch.as_tensor(np.where(observed > 0, x, 0)), torch.as_tensor(observed)
    state = Scaling(*torch.zeros(3, 1, len(x), dtype=torch.float64))
    states = []
    for t in range(x.shape[1]):
        state = scaling_step(values[None, :, t], marks[None, :, t], state, span=span)
        states.append(state)
    return states


def make(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 192))
    observed = np.ones_like(x)
    if kind == "gaps":
        observed[rng.random(x.shape) < 0.3] = 0
        observed[0, :70] = 0
        observed[1, 60:140] = 0
    elif kind == "far":
        x += 4096
    elif kind == "jump":
        x[:, 100:] += 65536
    elif kind == "stuck":
        x[:, 30:] = x[:, 30:31]
    return x.astype(np.float32).astype(np.float64), observed


@pytest.mark.parametrize("kind", ["plain", "gaps", "far", "jump", "stuck"])
@pytest.mark.parametrize(("span", "length"), [(2, 64), (7, 64), (168, 64), (2000, 96), (2, 192)])
def test_chunks_scale_as_steps(kind: str, span: float, length: int) -> None:
    x, observed = make(kind)
    got = run_chunks(x, observed, span=span, length=length)
    states = run_steps(x, observed, span=span)
    seen, mean, variance = (
        np.concatenate([part.numpy() for part in parts]).T for parts in zip(*states, strict=True)
    )
    np.testing.assert_allclose(got.seen, seen, rtol=1e-6, atol=1e-29)
    came = observed.cumsum(1) > 0
    scale = np.sqrt(variance + 1e-2)
    wrong = np.abs(np.sqrt(got.variance + 1e-2) - scale) / scale
    assert wrong.max() < 2e-5
    # What a reading is off the mean, in scales: nothing of the size of its level may be lost.
    last = np.where(observed > 0, x, np.nan)
    for t in range(1, x.shape[1]):
        last[:, t] = np.where(observed[:, t] > 0, last[:, t], last[:, t - 1])
    off = np.where(came, last - mean, 0)
    assert (np.abs(got.deviation - off) / scale).max() < 2e-5
    np.testing.assert_array_equal(got.last[came], last[came].astype(np.float32))
