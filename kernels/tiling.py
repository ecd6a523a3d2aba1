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


class ScanTiling(NamedTuple):
    """Sizes of one launch of the sLSTM.

    Attributes
    ----------
    rows
        Series of a program, a power of two, at least 16.
    warps
        Warps of a program, on AMD half as many.
    stages
        Depth of the software pipeline; 1 is none.
    """

    rows: int
    warps: int
    stages: int


# The larger head size of K and V, rounded up, to chunk, value block, warps, stages. Those of bf16,
# and those of tf32 and fp32 at 32 and 64, are the fastest of a few that were timed on an H200 (at
# 128 forward the second: the first spills on sm_80). The others were chosen by what stays in the
# registers. What all parts spill is bounded by `tests/kernels/test_compile.py`.
_Table = dict[Precision, dict[int, Tiling]]

_MLSTM_FORWARD: _Table = {
    "bf16": {
        16: Tiling(32, 16, 1, 2),
        32: Tiling(32, 32, 1, 3),
        64: Tiling(32, 64, 2, 1),
        128: Tiling(16, 128, 4, 1),
    },
    "tf32": {
        16: Tiling(32, 16, 1, 2),
        32: Tiling(16, 32, 1, 2),
        64: Tiling(16, 64, 2, 1),
        128: Tiling(16, 64, 8, 2),
    },
    "fp32": {
        16: Tiling(32, 16, 2, 1),
        32: Tiling(16, 32, 1, 1),
        64: Tiling(16, 64, 4, 1),
        128: Tiling(16, 32, 8, 1),
    },
}
_MLSTM_BACKWARD: _Table = {
    "bf16": {
        16: Tiling(32, 16, 1, 2),
        32: Tiling(16, 32, 1, 2),
        64: Tiling(32, 64, 4, 1),
        128: Tiling(32, 64, 4, 1),
    },
    "tf32": {
        16: Tiling(16, 16, 1, 1),
        32: Tiling(16, 32, 1, 1),
        64: Tiling(16, 64, 4, 1),
        128: Tiling(16, 32, 8, 1),
    },
    "fp32": {
        16: Tiling(16, 16, 2, 1),
        32: Tiling(16, 32, 2, 1),
        64: Tiling(16, 64, 4, 1),
        128: Tiling(16, 32, 8, 1),
    },
}


# Head size, rounded up. A scan waits for its own last step, so that a step has to be short: no more
# rows than a matrix unit takes, and a warp for every 8 columns, up to 8. What comes next is fetched
# by hand, so that one stage is enough.
_SCAN: dict[int, ScanTiling] = {
    16: ScanTiling(16, 2, 1),
    32: ScanTiling(16, 4, 1),
    64: ScanTiling(16, 8, 1),
    128: ScanTiling(16, 8, 1),
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


def slstm_tiling(dim: int, precision: Precision) -> ScanTiling:
    """Return the tiling of the sLSTM, forward and backward.

    Parameters
    ----------
    dim
        The head size D, at most 128.
    precision
        Of the matrix products; so far all share one tiling.

    Returns
    -------
    ScanTiling
        That of the head size.

    Raises
    ------
    ValueError
        If the head is larger than the kernels hold.
    """
    block = padded(dim)
    if block not in _SCAN:
        raise ValueError(f"Heads of the sLSTM may hold at most {max(_SCAN)}, got D={dim}.")
    return _SCAN[block]


def scan_shared_bytes(dim: int, precision: Precision, *, lanes: int = 32) -> int:
    """Return the most shared memory that a program of the sLSTM takes, in bytes.

    Parameters
    ----------
    dim, precision
        As for `slstm_tiling`.
    lanes
        Threads of a warp: 32, or 64 on AMD's data-centre parts.

    Returns
    -------
    int
        Four matrices of the head and five tiles of its rows. With 64 lanes the matrices end up in
        registers and pass through shared memory one after the other.
    """
    block, size = padded(dim), 2 if precision == "bf16" else 4
    if lanes == 64:
        return block * block * size
    return (4 * block + 5 * 16) * block * size


def fits(dim: int, precision: Precision, shared_limit: int, *, lanes: int = 32) -> bool:
    """Say whether the sLSTM runs where a program may take `shared_limit` bytes.

    Parameters
    ----------
    dim, precision, lanes
        As for `scan_shared_bytes`.
    shared_limit
        Shared memory of a program, as the device states it.

    Returns
    -------
    bool
        False as well for heads larger than any tiling holds.
    """
    within = scan_shared_bytes(dim, precision, lanes=lanes) <= shared_limit
    return padded(dim) in _SCAN and within
