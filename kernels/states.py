"""What a cell carries from one step to the next.

Both memories are stabilised: `m` is the logarithm of the scale that was taken out of `c` and `n`,
so the memory itself is `exp(m) * c` and `exp(m) * n` (Beck et al., 2024, arXiv:2405.04517,
equations 15 to 17). `m` may be any finite number as long as the three travel together; it carries
no gradient out of a cell, and enters the next one as a scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Log-scale of an empty memory: minus infinity in effect, finite so that no step makes inf - inf.
M_START = -1e30


class MLSTMState(NamedTuple):
    """Matrix memory of the mLSTM: `c` `(B, H, K, V)`, `n` `(B, H, K)`, `m` `(B, H)`."""

    c: Tensor
    n: Tensor
    m: Tensor

    def detach(self) -> MLSTMState:
        """Return the memory as a constant: no gradient flows back beyond it."""
        return MLSTMState(*(part.detach() for part in self))


class SLSTMState(NamedTuple):
    """Scalar memories of the sLSTM and its last output: `h`, `c`, `n`, `m`, each `(B, H, D)`."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor

    def detach(self) -> SLSTMState:
        """Return the memory as a constant: no gradient flows back beyond it."""
        return SLSTMState(*(part.detach() for part in self))


def mlstm_initial_state(
    batch: int,
    heads: int,
    key_dim: int,
    value_dim: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> MLSTMState:
    """Return the empty memory of an mLSTM.

    Parameters
    ----------
    batch, heads, key_dim, value_dim
        The sizes B, H, K and V.
    dtype, device
        Of the three tensors.

    Returns
    -------
    MLSTMState
        Zeros, with `m` at `M_START`.
    """
    c = torch.zeros(batch, heads, key_dim, value_dim, dtype=dtype, device=device)
    n = torch.zeros(batch, heads, key_dim, dtype=dtype, device=device)
    m = torch.full((batch, heads), M_START, dtype=dtype, device=device)
    return MLSTMState(c, n, m)


def slstm_initial_state(
    batch: int,
    heads: int,
    dim: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> SLSTMState:
    """Return the empty memory of an sLSTM.

    Parameters
    ----------
    batch, heads, dim
        The sizes B, H and D.
    dtype, device
        Of the four tensors.

    Returns
    -------
    SLSTMState
        Zeros, with `m` at `M_START`.
    """
    h, c, n = (torch.zeros(batch, heads, dim, dtype=dtype, device=device) for _ in range(3))
    m = torch.full((batch, heads, dim), M_START, dtype=dtype, device=device)
    return SLSTMState(h, c, n, m)
