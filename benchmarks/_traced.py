"""The naive way to a step graph: `XLSTM.step` traced by torch's exporter. Needs onnxscript."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from xlstm_ts.model import XLSTM

OPSET = 18
BATCH = 3  # a batch of one would be taken for a constant


class _Step(nn.Module):
    """`XLSTM.step` of a model without covariates, with a flat list of arrays in and out."""

    def __init__(self, model: XLSTM) -> None:
        super().__init__()
        self.model = model

    def forward(self, reading: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        forecast, after = self.model.step(reading, state)
        return (forecast, *after)


def trace_step(model: XLSTM, path: Path) -> list[str]:
    """Write the traced graph of a model in evaluation mode; return the names of its state.

    Inputs are `reading` and the state, outputs `forecast` and the state, each name followed by
    `_next`, of any batch.

    Raises
    ------
    ModuleNotFoundError
        Where onnxscript is not installed.
    """
    names = [field.name for field in model.state_fields()]
    reading = torch.zeros(BATCH, model.config.n_channels)
    batch = {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about names of axes, and of the exporter about itself
        torch.onnx.export(
            _Step(model),
            (reading, *model.initial_state(BATCH)),
            path,
            input_names=["reading", *names],
            output_names=["forecast", *(f"{name}_next" for name in names)],
            dynamic_shapes=(batch, tuple(batch for _ in names)),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return names
