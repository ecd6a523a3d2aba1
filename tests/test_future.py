"""The path of what is known ahead: in pieces it is the plain product, forwards and backwards."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_ts import future
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.future import FuturePath

HORIZON, STRIDE, TOKENS, SEQUENCES = 5, 3, 4, 7


@pytest.fixture
def path() -> FuturePath:
    torch.manual_seed(0)
    config = XLSTMConfig(n_channels=1, horizon=HORIZON, n_known=2, periods=(24,))
    return FuturePath(config).double()


def _inputs(path: FuturePath) -> tuple[Tensor, Tensor]:
    readings = (TOKENS - 1) * STRIDE + HORIZON
    x = torch.randn(SEQUENCES, TOKENS, path.token.in_features, dtype=torch.float64)
    known = torch.randn(SEQUENCES, readings, path.ahead.in_features, dtype=torch.float64)
    return x.requires_grad_(), known.requires_grad_()


def _plain(path: FuturePath, x: Tensor, known: Tensor) -> Tensor:
    rows = []
    for n in range(TOKENS):
        steps = path.ahead(known[:, n * STRIDE : n * STRIDE + HORIZON])
        rows.append(path.out(F.silu(path.token(x[:, n])[:, None] + steps)))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("together", [1, 3, 100])
def test_pieces_give_the_plain_product_and_its_gradients(
    path: FuturePath, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(future, "PIECE", together * HORIZON * future.FUTURE_WIDTH)
    x, known = _inputs(path)
    leaves = (x, known, *path.parameters())
    results = [path(x, known, stride=STRIDE), _plain(path, x, known)]
    upstream = torch.randn_like(results[0])
    gradients = [torch.autograd.grad(out, leaves, upstream) for out in results]
    torch.testing.assert_close(results[0], results[1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_token_is_the_first_of_many(path: FuturePath) -> None:
    x, known = _inputs(path)
    one = path(x[:, :1], known[:, :HORIZON], stride=STRIDE)
    torch.testing.assert_close(one, path(x, known, stride=STRIDE)[:, :1])


def test_mixed_precision_trains_it(path: FuturePath) -> None:
    x, known = _inputs(path)
    expected = torch.autograd.grad(_plain(path, x, known).sum(), x)[0]
    path.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = path(x.float(), known.float(), stride=STRIDE)
    got = torch.autograd.grad(out.sum(), x)[0]
    torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05)
