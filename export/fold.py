"""The weights of a block as the step graph wants them: few matrices, nothing done twice.

Linear maps that follow one another are multiplied once, here, in float64. Tokens are rows in
front, matrices `(in, out)` behind. Letters as in `graph`: E width of the stream, I inside of a
block, H heads, D units of a head, K taps of a convolution.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xlstm_ts.blocks import MLSTMBlock, SLSTMBlock
from xlstm_ts.cells import CausalConv
from xlstm_ts.model import XLSTM

Weights = NDArray[np.float64]

# Logarithms of levels that float32 holds, both ways round.
LEVELS = (-80, 80)
# What stands for minus infinity in a gate: finite, and far below the log-scale of an empty memory.
NEVER = -3e38
# exp(40) leaves float32 twenty orders of magnitude for keys, values and their sum over time.
LARGEST_INPUT_GATE = 40.0
SILU_MINIMUM = -0.2785
# What float32 holds, both ways round; and spreads of which it holds the squares of 1e9 as well as a
# hundredth, so that nothing is gained by another unit.
UNIT_EXPONENTS = (-126, 126)
PLAIN_EXPONENTS = 25


class Affine(NamedTuple):
    """A matrix `(in, out)` and what is added, `(out,)`."""

    weight: Weights
    bias: Weights


class ChannelUnits(NamedTuple):
    """What a graph counts readings in, `(C,)` each.

    Attributes
    ----------
    unit : ndarray
        One, or a power of two near the spread of the channel where that is far from one: to divide
        by it costs no digit.
    center, spread : ndarray
        Those of the model, in this unit.
    level : ndarray
        With a transform, what readings are divided by before the logarithm: that of a level of
        thousands would leave few digits of float32 to a spread of percents.
    """

    unit: Weights
    center: Weights
    spread: Weights
    level: Weights


class MLSTMWeights(NamedTuple):
    """The products of an mLSTM block.

    Attributes
    ----------
    conv : Affine or None
        From the last K normed tokens, oldest first, through the up-projection to the convolved
        inside: `(K * E, I)`. None where there is no convolution.
    cell : Affine
        From the convolved inside, if there is one, the normed token, and the mark of an absent
        token to the query (scaled by D**-0.5), key, input and forget gate of each head:
        `H * (2 * D + 2)` columns. An absent token neither writes nor forgets.
    value : Affine
        From the normed token to the values of each head and a one: `H * (D + 1)` columns. The one
        makes the normaliser n the last column of C.
    gate : ndarray
        From the normed token to the output gate.
    down : ndarray
        From the normed heads, times their gain, to the stream.
    bounded : bool
        No input gate can exceed `LARGEST_INPUT_GATE`: the memory needs no stabiliser. The forget
        gate then keeps its sign, for a sigmoid; otherwise it is turned, for a softplus.
    """

    conv: Affine | None
    cell: Affine
    value: Affine
    gate: Weights
    down: Weights
    bounded: bool


class SLSTMWeights(NamedTuple):
    """The products of an sLSTM block.

    Attributes
    ----------
    conv : Affine or None
        From the last K normed tokens, oldest first, to the convolved one.
    cell : Affine
        From the convolved token, if there is one, the normed token, the last output and the mark
        of an absent token to the gates i, -f, z, o, each `H * D` columns.
    """

    conv: Affine | None
    cell: Affine


def array(tensor: Tensor) -> Weights:
    """Return a tensor as float64 on the CPU."""
    values: Weights = tensor.detach().cpu().double().numpy()
    return values


def weights_hash(model: XLSTM) -> str:
    """Return the SHA-256 of the shape and the weights of a model, in hexadecimal."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.numpy(force=True).tobytes())
    return digest.hexdigest()


def channel_units(model: XLSTM) -> ChannelUnits:
    """Return the units of the channels of a model."""
    center, spread = (array(part) for part in (model.center, model.spread))
    level = np.ones_like(center)
    if model.config.target_transform is not None:
        # As float32 holds it.
        level = np.exp(center.clip(*LEVELS)).astype(np.float32).astype(np.float64)
        center = center - np.log(level)
    exponents = np.clip(np.round(np.log2(spread)), *UNIT_EXPONENTS)
    unit = np.where(np.abs(exponents) <= PLAIN_EXPONENTS, 1.0, np.exp2(exponents))
    return ChannelUnits(unit, center / unit, spread / unit, level)


def fold_embedding(model: XLSTM) -> Affine:
    """Return the embedding of the readings of a patch and of their marks, `(2 * G * P, E)`.

    The model sees patches time by time, with a mark where a reading is missing; graphs have them
    channel by channel, with a mark where it is there.
    """
    config = model.config
    patch, channels = config.patch_length, config.group_channels
    width = channels + config.n_past + config.n_known
    weight = array(model.embed.weight).T[: 2 * patch * width].reshape(2, patch, width, -1)
    values, gaps = weight[:, :, :channels].swapaxes(1, 2).reshape(2, patch * channels, -1)
    return Affine(np.concatenate((values, -gaps)), array(model.embed.bias) + gaps.sum(0))


def fold_mlstm(block: MLSTMBlock) -> MLSTMWeights:
    """Fold the weights of an mLSTM block."""
    layer = block.cell
    heads, dim = layer.heads, layer.dim
    inner = heads * dim
    inside, gate = np.split(array(block.up.weight).T, 2, axis=1)
    query, key = np.split(array(layer.query_key.weight).T, 2, axis=1)
    value = inside @ array(layer.value.weight).T
    # Gates are linear in q, k and v: (I, 2, H) from the convolved inside, (E, 2, H) from the token.
    of_query, of_key, of_value = np.split(array(layer.gates.weight).T, 3)
    gates_mixed = (query @ of_query + key @ of_key).reshape(inner, 2, heads)
    gates_token = (value @ of_value).reshape(-1, 2, heads)
    bounded = bool(_largest_input_gate(block, gates_mixed, gates_token) <= LARGEST_INPUT_GATE)
    sign = np.array([1, 1 if bounded else -1])

    cell, bias = (
        np.zeros((inner + len(inside) + 1, heads, 2 * dim + 2)),
        np.zeros((heads, 2 * dim + 2)),
    )
    mixed, token, absent = cell[:inner], cell[inner:-1], cell[-1]
    mixed[..., :dim] = query.reshape(inner, heads, dim) * dim**-0.5
    mixed[..., dim:-2] = key.reshape(inner, heads, dim)
    mixed[..., -2:] = gates_mixed.swapaxes(1, 2) * sign
    token[..., -2:] = gates_token.swapaxes(1, 2) * sign
    absent[:, -2:] = np.array([NEVER, -NEVER]) * sign
    bias[:, -2:] = array(layer.gates.bias).reshape(2, heads).T * sign

    if layer.conv is None:
        # What a convolution would have made of the inside is the inside itself.
        token += np.tensordot(inside, mixed, 1)
        cell = cell[inner:]
    values, ones = np.zeros((len(inside), heads, dim + 1)), np.zeros((heads, dim + 1))
    values[..., :dim] = value.reshape(-1, heads, dim)
    ones[:, dim] = 1
    return MLSTMWeights(
        conv=_fold_conv(layer.conv, inside),
        cell=Affine(cell.reshape(len(cell), -1), bias.ravel()),
        value=Affine(values.reshape(len(values), -1), ones.ravel()),
        gate=gate,
        down=array(layer.norm.weight)[:, None] * array(block.down.weight).T,
        bounded=bounded,
    )


def join_products(weights: MLSTMWeights, heads: int) -> Affine:
    """Return cell, value and gate as one product of the input of the cell, head by head.

    Columns of a head: query, key, input and forget gate, value and one, output gate. A quarter of
    the numbers are zeros, but one product of few costs less than three.
    """
    above = len(weights.cell.weight) - 1 - len(weights.gate)
    parts = (
        Affine(np.pad(part.weight, ((above, 1), (0, 0))), part.bias) for part in _of_token(weights)
    )
    return _by_head((weights.cell, *parts), heads)


def join_token_products(weights: MLSTMWeights, heads: int) -> Affine:
    """Return value and gate as one product of the token, head by head."""
    return _by_head(_of_token(weights), heads)


def _of_token(weights: MLSTMWeights) -> tuple[Affine, ...]:
    return weights.value, Affine(weights.gate, np.zeros(weights.gate.shape[1]))


def _by_head(parts: tuple[Affine, ...], heads: int) -> Affine:
    """Put products of the same input side by side, the columns of each head together."""
    weight, bias = (
        np.concatenate([array.reshape(-1, heads, array.shape[-1] // heads) for array in same], 2)
        for same in zip(*parts, strict=True)
    )
    return Affine(weight.reshape(len(weight), -1), bias.ravel())


def fold_slstm(block: SLSTMBlock) -> SLSTMWeights:
    """Fold the weights of an sLSTM block."""
    layer = block.cell
    heads, dim = layer.heads, layer.dim
    width = heads * dim
    cell = np.zeros((3 * width + 1, 4, heads, dim))
    cell[:width, :2] = array(layer.input_forget.weight).T.reshape(width, 2, heads, dim)
    cell[width : 2 * width, 2:] = array(layer.cell_output.weight).T.reshape(width, 2, heads, dim)
    for head, recurrent in enumerate(array(layer.recurrent)):
        rows = slice(2 * width + head * dim, 2 * width + (head + 1) * dim)
        cell[rows, :, head] = recurrent.transpose(2, 0, 1)
    bias = array(layer.bias).copy()
    cell[:, 1] *= -1
    bias[1] *= -1
    cell[-1, :2] = NEVER
    if layer.conv is None:
        cell[width : 2 * width] += cell[:width]
        cell = cell[width:]
    return SLSTMWeights(
        conv=_fold_conv(layer.conv, np.eye(width)),
        cell=Affine(cell.reshape(len(cell), -1), bias.ravel()),
    )


def _fold_conv(conv: CausalConv | None, inside: Weights) -> Affine | None:
    """Multiply the taps of a depthwise convolution into the map of a token to its inside."""
    if conv is None:
        return None
    taps = array(conv.weight)
    return Affine(np.concatenate([inside * tap for tap in taps]), array(conv.bias))


def _largest_input_gate(block: MLSTMBlock, mixed: Weights, token: Weights) -> float:
    """Return what no input gate of a block can exceed, whatever the readings.

    The layer norm bounds its output, its gain apart, by sqrt(E) in length, so any linear map of
    it is bounded by sqrt(E) times the length of its row. The convolution adds K of these, and silu
    lies between its minimum and its argument.
    """
    layer, gain = block.cell, array(block.norm.weight)[:, None]
    inner, heads = mixed.shape[0], mixed.shape[2]
    length = np.sqrt(len(gain))
    up = array(block.up.weight).T[:, :inner]
    gate_mixed, gate_token = mixed[:, 0], token[:, 0]  # (I, H), (E, H)
    through = np.zeros(heads)
    if layer.conv is None:
        gate_token = gate_token + up @ gate_mixed
    else:
        inside = length * np.linalg.norm(gain * up, axis=0)
        taps, bias = array(layer.conv.weight), array(layer.conv.bias)
        convolved = np.maximum(inside * np.abs(taps).sum(0) + bias, 0)[:, None]
        through = np.maximum(gate_mixed * convolved, gate_mixed * SILU_MINIMUM).sum(0)
    directly = length * np.linalg.norm(gain * gate_token, axis=0)
    return float((through + directly + array(layer.gates.bias)[:heads]).max())
