"""An LSTM of the size of the detector's own network: frozen after training, one step ahead."""

from __future__ import annotations

import numpy as np
import torch
from _rivals import Array, standardised
from torch import Tensor, nn
from torch.distributions import StudentT

WIDTH, SEED = 64, 0
CONTEXT, BATCH, STEPS = 128, 32, 300
CLIP = 8.0  # standard deviations: one glitch must not fill the memory


class Network(nn.Module):
    """One step ahead, the location and scale of each channel."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, width, batch_first=True)
        self.head = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor) -> StudentT:
        """Tell the reading after each of `x` `(B, T, C)`, as a change from it."""
        hidden, _ = self.lstm(x)
        change, scale = self.head(hidden).chunk(2, dim=-1)
        return StudentT(df=5.0, loc=x + change, scale=nn.functional.softplus(scale) + 1e-3)


def lstm(readings: Array, *, known: int) -> Array:
    """Return the errors of an LSTM in units of the scale that it expected."""
    torch.manual_seed(SEED)
    z = torch.tensor(standardised(readings, known).clip(-CLIP, CLIP), dtype=torch.float32)
    network = Network(z.shape[1], width=WIDTH)
    _train(network, z[:known])
    with torch.no_grad():
        expected = network(z[None, :-1])
        error = (z[1:] - expected.loc[0]).abs() / expected.scale[0]
    return np.concatenate([np.zeros((1, z.shape[1])), error.numpy()])


def _train(network: Network, z: Tensor) -> None:
    context = min(CONTEXT, len(z) - 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        starts = torch.randint(len(z) - context, (BATCH,))
        window = torch.stack([z[start : start + context + 1] for start in starts])
        # The first readings are told from an empty memory.
        loss = -network(window[:, :-1]).log_prob(window[:, 1:])[:, context // 8 :].mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
