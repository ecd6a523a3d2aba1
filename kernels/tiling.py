"""How the kernels cut their work: one table, filled by what fits into the registers."""

from __future__ import annotations

from typing import NamedTuple

from xlstm_ts.kernels.precision import Precision


class Tiling(NamedTuple):
    """Sizes of one kernel launch.

    Attributes
    ----------
    chunk
        Steps that are computed at once, a power of two, at least 16.
    value_block
        Values that one program holds, a power of two, at least 16; larger heads take several.
    warps
        Warps of a program, of 32 threads. AMD's have 64, and a launch takes half as many.
    stages
        Depth of the software pipeline over chunks; 1 is none, as always on AMD, where what is
        fetched ahead waits in registers.
    """

    chunk: int
    value_block: int
    warps: int
    stages: int


# The larger head size of K and V, rounded up, to chunk, value block, warps, stages. Chosen by what
# stays in the registers of sm_80, sm_90, sm_100 and gfx942: `tests/kernels/test_compile.py`.
_Table = dict[Precision, dict[int, Tiling]]

_MLSTM_FORWARD: _Table = {
    "bf16": {
        16: Tiling(32, 16, 1, 2),
        32: Tiling(32, 32, 2, 2),
        64: Tiling(32, 64, 4, 2),
        128: Tiling(32, 64, 8, 2),
    },
    "tf32": {
        16: Tiling(32, 16, 1, 2),
        32: Tiling(32, 32, 4, 2),
        64: Tiling(32, 64, 8, 2),
        128: Tiling(16, 64, 8, 2),
    },
    "fp32": {
        16: Tiling(32, 16, 2, 1),
        32: Tiling(16, 32, 2, 1),
        64: Tiling(16, 64, 8, 1),
        128: Tiling(16, 32, 8, 1),
    },
}
_MLSTM_BACKWARD: _Table = {
    "bf16": {
        16: Tiling(16, 16, 1, 1),
        32: Tiling(16, 32, 2, 1),
        64: Tiling(16, 64, 4, 1),
        128: Tiling(16, 64, 8, 1),
    },
    "tf32": {
        16: Tiling(16, 16, 1, 1),
        32: Tiling(16, 32, 4, 1),
        64: Tiling(16, 64, 8, 1),
        128: Tiling(16, 32, 8, 1),
    },
    "fp32": {
        16: Tiling(16, 16, 2, 1),
        32: Tiling(16, 32, 4, 1),
        64: Tiling(16, 64, 8, 1),
        128: Tiling(16, 32, 8, 1),
    },
}


def padded(size: int) -> int:
    """Round a head size up to what a kernel holds: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


def mlstm_tiling(key_dim: int, value_dim: int, precision: Precision, *, backward: bool) -> Tiling:
    """Return the tiling of the mLSTM for heads of K keys and V values.

    Parameters
    ----------
    key_dim, value_dim
        The sizes K and V, each at most 128.
    precision
        Of the matrix products.
    backward
        Whether for the gradient.

    Returns
    -------
    Tiling
        That of the larger size, its block no larger than V needs.

    Raises
    ------
    ValueError
        If a head is larger than the kernels hold.
    """
    size = padded(max(key_dim, value_dim))
    table = (_MLSTM_BACKWARD if backward else _MLSTM_FORWARD)[precision]
    if size not in table:
        raise ValueError(f"Heads may hold at most 128, got K={key_dim} and V={value_dim}.")
    tiling = table[size]
    return tiling._replace(value_block=min(tiling.value_block, padded(value_dim)))
