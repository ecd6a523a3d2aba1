"""The table of block sizes."""

import pytest

from xlstm_ts.kernels.tiling import fits, mlstm_tiling, padded, slstm_tiling


def test_heads_are_padded_to_powers_of_two() -> None:
    sizes = [1, 8, 16, 17, 32, 33, 100, 128]
    assert [padded(size) for size in sizes] == [16, 16, 16, 32, 32, 64, 128, 128]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("K", "V"), [(8, 8), (24, 24), (64, 33), (16, 128), (128, 8)])
def test_tilings_are_powers_of_two(K, V, precision, backward) -> None:
    tiling = mlstm_tiling(K, V, precision, backward=backward)
    for size in tiling[:3]:
        assert size & (size - 1) == 0
    assert tiling.chunk >= 16
    assert 16 <= tiling.value_block <= padded(V)


def test_a_head_may_be_too_large() -> None:
    with pytest.raises(ValueError, match="at most 128, got K=129 and V=16"):
        mlstm_tiling(129, 16, "bf16", backward=False)
    with pytest.raises(ValueError, match="at most 128, got D=129"):
        slstm_tiling(129, "bf16")


def test_what_fits_on_consumer_parts() -> None:
    limit = 99 * 1024
    assert fits(64, "fp32", limit)
    assert not fits(128, "bf16", limit)
    assert not fits(129, "bf16", 227 * 1024)
