"""The model: causal scaling, patch, blocks, head, and the linear path beside them.

One set of weights, two forms that agree to rounding. `XLSTM.forward` runs a whole sequence at
once, `XLSTM.step` takes one reading and the state. A token ends at *every* reading: it holds the
last `patch_length` readings and continues from the state of the token `patch_length` readings
ago, so that each step gives a fresh forecast. The state therefore carries `patch_length` cell
states, oldest first. Training needs only the tokens that end at one of these phases, which
`XLSTM.forward_patches` runs.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.blocks import Block, build_block
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.covariates import CovariateEncoder, features_now
from xlstm_ts.head import ForecastHead
from xlstm_ts.patches import Recent, scaled, windows
from xlstm_ts.phases import advance, run, unroll
from xlstm_ts.readings import ReadingUnits
from xlstm_ts.scaling import Scaling, causal_scaling, scaling_step
from xlstm_ts.state import State, StateField, initial_state

N_SCALING = len(Scaling._fields)
N_BUFFER = 2


class XLSTM(nn.Module):
    """xLSTM forecaster of raw readings, in parallel over time or one reading at a time.

    Letters of shapes: B series, T readings, C channels, H horizon, Q quantile levels. Inside, the
    channels of a series are split into groups that share the weights; S is B times groups, G the
    channels of one group, N tokens, E the width of the residual stream. With covariates (see
    `xlstm_ts.covariates`) there are K columns beside the readings, X of them past or known.

    Parameters
    ----------
    config : XLSTMConfig
        The shape of the model.
    """

    center: Tensor
    spread: Tensor
    levels: Tensor

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.d_model, config.group_channels
        patch = config.patch_length * (channels + config.n_past + config.n_known)
        # A level far above its spread would lose the spread in float32.
        self.register_buffer("center", torch.zeros(config.n_channels, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(config.n_channels, dtype=torch.float64))
        self.register_buffer("levels", torch.tensor(config.quantiles), persistent=False)
        self.covariates = CovariateEncoder(config)
        self.embed = nn.Linear(2 * patch + features_now(config), width)
        self.channel = (
            nn.Parameter(torch.zeros(config.groups, width)) if config.channel_embedding else None
        )
        self.blocks = nn.ModuleList(build_block(letter, config) for letter in config.blocks)
        self.head = ForecastHead(config)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            # A gap means "at the mean" until training data with gaps say otherwise.
            self.embed.weight[:, patch : 2 * patch] = 0

    @torch.no_grad()
    def set_units(self, center: NDArray[np.float64], spread: NDArray[np.float64]) -> None:
        """Set what readings are standardised by: level and spread of each channel, `(1, C)`."""
        self.center.copy_(torch.as_tensor(center[0]))
        self.spread.copy_(torch.as_tensor(spread[0]))

    @property
    def units(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What readings are standardised by, `(C,)` each."""
        return self.center.numpy(force=True), self.spread.numpy(force=True)

    def state_fields(self) -> tuple[StateField, ...]:
        """Return names, shapes and initial values of the state, in order."""
        config = self.config
        groups, channels = config.groups, config.group_channels
        past = (groups, config.buffer_length, channels + config.n_past + config.n_known)
        scaling = (StateField(f"scaling_{name}", (groups, channels)) for name in Scaling._fields)
        buffer = (StateField(f"buffer_{name}", past) for name in Recent._fields)
        cells = (
            StateField(f"block{j}_{name}", (groups, config.patch_length, *shape), initial)
            for j, block in enumerate(cast("list[Block]", list(self.blocks)))
            for name, shape, initial in block.state_fields()
        )
        return (*scaling, *buffer, *cells)

    def initial_state(self, batch: int = 1) -> State:
        """Return the state of `batch` streams that have seen nothing."""
        weight = self.embed.weight
        return initial_state(self.state_fields(), batch, dtype=weight.dtype, device=weight.device)

    def forward(
        self, readings: Tensor, state: State | None = None, covariates: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Forecast at every reading of a sequence.

        Parameters
        ----------
        readings : Tensor
            Raw readings `(B, T, C)`; NaN is missing, and so is what lies 1e9 spreads off.
        state : State, optional
            The state before the first of them; none is a cold start.
        covariates : Tensor, optional
            Raw columns `(B, T + H, K)` of these readings and of the next H, of which only what is
            known ahead is looked at; NaN is missing, and without them all are.

        Returns
        -------
        tuple of Tensor and State
            Forecasts `(B, T, H, C, Q)` in units and dtype of the readings, and the state after the
            last reading.
        """
        batch, length = readings.shape[:2]
        state = self.initial_state(batch) if state is None else state
        value, observed = self._fold(readings)
        if covariates is None:
            covariates = self.covariates.missing(batch, length + self.config.horizon)
        columns = covariates.repeat_interleave(self.config.groups, 0)
        scaling, buffer, cells = self._split([part.flatten(0, 1) for part in state])
        scalings = causal_scaling(value, observed, scaling, span=self.config.scaling_span)
        value, observed, now = self._beside(value, observed, columns[:, :length])
        value, observed = (
            torch.cat((past[:, 1:], part), 1)
            for past, part in zip(buffer, (value, observed), strict=True)
        )
        recent = windows(value, observed, self.config.buffer_length, stride=1)
        x, mask = self._tokens(recent, scalings, now, self._groups(batch))
        x, cells = unroll(self.blocks, x, mask, cells, period=self.config.patch_length)
        new = (*(part[:, -1] for part in (*scalings, *recent)), *cells)
        known = self._known(self.covariates.ahead(columns)[:, 1:])
        forecast = self.head(x, recent, scalings, known, stride=1)
        forecast = self._unfold(forecast, like=readings)
        return forecast, tuple(part.unflatten(0, (batch, -1)) for part in new)

    def scale(self, readings: Tensor, state: State | None = None) -> Tensor:
        """Return what each channel is divided by at every reading.

        Parameters
        ----------
        readings : Tensor
            Raw readings `(B, T, C)`; NaN is missing.
        state : State, optional
            The state before the first of them; none is a cold start.

        Returns
        -------
        Tensor
            Scales `(B, T, C)` in raw units; with a transform on the scale of that.
        """
        batch = readings.shape[0]
        state = self.initial_state(batch) if state is None else state
        value, observed = self._fold(readings)
        scaling, _, _ = self._split([part.flatten(0, 1) for part in state])
        scalings = causal_scaling(value, observed, scaling, span=self.config.scaling_span)
        # (B * groups, T, G) to (B, T, C)
        joined = scalings.scale.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)
        return joined * self.spread

    def step(
        self,
        reading: Tensor,
        state: State,
        covariates: Tensor | None = None,
        future: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Take one reading.

        Parameters
        ----------
        reading : Tensor
            Raw reading `(B, C)`; NaN is missing.
        state : State
            The state before it.
        covariates : Tensor, optional
            Raw columns `(B, K)` of this reading; NaN is missing.
        future : Tensor, optional
            Raw known and cyclic columns `(B, H, ...)` of the next readings; NaN is missing.

        Returns
        -------
        tuple of Tensor and State
            Forecast `(B, H, C, Q)` in raw units, and the state after the reading.
        """
        batch = reading.shape[0]
        value, observed = self._fold(reading.unsqueeze(1))
        if covariates is None:
            covariates = self.covariates.missing(batch)
        if future is None:
            future = self.covariates.ahead(self.covariates.missing(batch, self.config.horizon))
        groups = self.config.groups
        columns, future = (
            part.repeat_interleave(groups, 0) for part in (covariates.unsqueeze(1), future)
        )
        scaling, buffer, cells = self._split([part.flatten(0, 1) for part in state])
        scaling = scaling_step(value[:, 0], observed[:, 0], scaling, span=self.config.scaling_span)
        scalings = Scaling(*(part.unsqueeze(1) for part in scaling))
        value, observed, now = self._beside(value, observed, columns)
        buffer = [
            torch.cat((past[:, 1:], part), 1)
            for past, part in zip(buffer, (value, observed), strict=True)
        ]
        recent = Recent(*(part.unsqueeze(1) for part in buffer))
        x, mask = self._tokens(recent, scalings, now, self._groups(batch))
        x, cells = advance(self.blocks, x[:, 0], mask[:, 0], cells)
        new = (*scaling, *buffer, *cells)
        out = self.head(x.unsqueeze(1), recent, scalings, self._known(future), stride=1)
        forecast = self._unfold(out, like=reading)
        return forecast[:, 0], tuple(part.unflatten(0, (batch, -1)) for part in new)

    def forecast(
        self,
        readings: Tensor,
        covariates: Tensor | None = None,
        units: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Forecast from the end of each window, from a cold start.

        Parameters
        ----------
        readings : Tensor
            Windows of raw readings `(B, T, C)`, T at least 1; NaN is missing.
        covariates : Tensor, optional
            Raw columns `(B, T + H, K)`, as for `forward`.
        units : tuple of Tensor, optional
            Center and spread of each window `(B, C)` in place of those of the model.

        Returns
        -------
        Tensor
            Forecasts `(B, H, C, Q)` in raw units.
        """
        missing = -readings.shape[1] % self.config.patch_length
        before = (0, 0, missing, 0)
        value, observed = self._fold(F.pad(readings, before, value=torch.nan), units)
        if covariates is not None:
            covariates = F.pad(covariates, before, value=torch.nan)
            covariates = covariates.repeat_interleave(self.config.groups, 0)
        groups = self._groups(len(readings))
        forecasts, _ = self.forward_patches(value, observed, covariates, groups=groups, last=True)
        return self._unfold(forecasts, like=readings, units=units)[:, 0]

    def forward_patches(
        self,
        value: Tensor,
        observed: Tensor,
        covariates: Tensor | None = None,
        state: State | None = None,
        *,
        groups: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """Forecast at the end of each whole patch: the path of training.

        Parameters
        ----------
        value, observed : Tensor
            Standardised readings and 1 where they are there, else 0, `(S, T, G)`; T is a
            multiple of the patch length.
        covariates : Tensor, optional
            Raw columns `(S, T + H, K)`, as for `forward`.
        state : State, optional
            What an earlier call left, to go on from; none is a cold start, `patch_state`.
        groups : Tensor, optional
            Which group of channels each sequence is of, `(S,)`; needed with a channel embedding.
        last : bool
            Whether to forecast from the last patch alone: then there is one.

        Returns
        -------
        tuple of Tensor and State
            Forecasts `(S, T / patch_length, H, G, Q)` in standardised units, and the state after
            the last patch. It is of one phase, unlike that of `forward`.
        """
        config, (rows, length) = self.config, value.shape[:2]
        patch = config.patch_length
        if covariates is None:
            covariates = self.covariates.missing(rows, length + config.horizon)
        scaling, past, cells = self._split(list(state or self.patch_state(rows)))
        scalings = causal_scaling(value, observed, scaling, span=config.scaling_span)
        ends = Scaling(*(part[:, patch - 1 :: patch] for part in scalings))
        value, observed, now = self._beside(value, observed, covariates[:, :length])
        value, observed = (
            torch.cat(parts, 1) for parts in zip(past, (value, observed), strict=True)
        )
        recent = windows(value, observed, config.buffer_length, stride=patch)
        x, mask = self._tokens(recent, ends, now[:, patch - 1 :: patch], groups)
        x, cells = run(self.blocks, x, mask, cells)
        first = length if last else patch
        if last:
            x, recent = x[:, -1:], Recent(*(part[:, -1:] for part in recent))
            ends = Scaling(*(part[:, -1:] for part in ends))
        known = self._known(self.covariates.ahead(covariates)[:, first:])
        left = (part[:, length:] for part in (value, observed))
        new = (*(part[:, -1] for part in scalings), *left, *cells)
        return self.head(x, recent, ends, known, stride=patch), new

    def patch_state(self, rows: int) -> State:
        """Return the state of sequences that have seen nothing, for `forward_patches`."""
        start = self._split([part.flatten(0, 1)[:1] for part in self.initial_state()])
        past = (part[:, self.config.patch_length :] for part in start[1])
        cells = (part[:, 0] for part in start[2])
        parts = (*start[0], *past, *cells)
        return tuple(part.expand(rows, *part.shape[1:]) for part in parts)

    def _fold(
        self, readings: Tensor, units: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        units = units or (self.center, self.spread)
        folding = ReadingUnits(self.config.target_transform, *units)
        return folding.fold(readings, groups=self.config.groups, dtype=self.embed.weight.dtype)

    def _beside(
        self, value: Tensor, observed: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put columns `(S, T, K)` beside readings: values, marks, and what tells the moment."""
        if not columns.shape[-1]:
            return value, observed, value[..., :0]
        seen = self.covariates.encode(columns, dtype=value.dtype)
        value = torch.cat((value, seen.value), 2)
        return value, torch.cat((observed, seen.observed), 2), seen.now

    def _known(self, columns: Tensor) -> Tensor | None:
        """Return the features of known and cyclic columns `(S, T, ...)`, if there are any."""
        if self.head.future_path is None:
            return None
        return self.covariates.encode_ahead(columns, dtype=self.embed.weight.dtype)

    def _unfold(
        self, forecast: Tensor, *, like: Tensor, units: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        units = units or (self.center, self.spread)
        return ReadingUnits(self.config.target_transform, *units).unfold(forecast, like=like)

    def _split(self, state: list[Tensor]) -> tuple[Scaling, list[Tensor], State]:
        cells = N_SCALING + N_BUFFER
        return Scaling(*state[:N_SCALING]), state[N_SCALING:cells], tuple(state[cells:])

    def _groups(self, batch: int) -> Tensor:
        """Return which group of channels each of the sequences of a batch is of, `(S,)`."""
        return torch.arange(self.config.groups, device=self.center.device).repeat(batch)

    def _tokens(
        self, recent: Recent, scaling: Scaling, now: Tensor, groups: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed the patch at each position: tokens `(S, N, E)` and which hold a reading."""
        value, observed = (part[:, :, -self.config.patch_length :] for part in recent)
        patch = scaled(value, observed, scaling)
        # Neither level nor scale is a feature: the forecast of a * y + b is that of y, scaled.
        features = torch.cat((patch.flatten(2), 1 - observed.flatten(2), now), 2)
        x = self.embed(features)
        if self.channel is not None:
            if groups is None:
                raise ValueError("`groups` is missing: the model tells channels apart.")
            x = x + self.channel[groups].unsqueeze(1)
        return self.dropout(x), observed.flatten(2).amax(2) > 0
