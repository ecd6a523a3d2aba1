"""How an operator is differentiated and batched: in a graph, by autograd, by `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import CustomOpDef  # type: ignore[attr-defined]

Outputs = tuple[Tensor, ...]


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None: ...


def _not_twice(ctx: Any, *upstream: Tensor | None) -> NoReturn:
    raise NotImplementedError(
        "The gradients of mlstm and slstm cannot be differentiated again; for a second derivative, "
        "call mlstm_step or slstm_step in a loop."
    )


def _no_forward_mode() -> NoReturn:
    raise NotImplementedError(
        "mlstm and slstm have no forward-mode derivative (torch.func.jvp, jacfwd, hessian): use "
        "reverse mode (torch.func.grad, vjp, jacrev), or call mlstm_step or slstm_step in a loop."
    )


def differentiable(
    operator: CustomOpDef,
    backward: Callable[..., tuple[Tensor | None, ...]] = _not_twice,
    setup: Callable[..., None] = _keep_nothing,
) -> Callable[..., Outputs]:
    """Give an operator its gradient, and return the function that calls it.

    A graph of `torch.compile` holds the operator itself, with the gradient that is registered here.
    That one knows neither `torch.func` nor forward mode, whose tangents would come out as zero. So
    what is differentiated elsewhere goes through a `torch.autograd.Function`, which knows the one
    and refuses the other. No graph takes that in, since it has a `jvp`.

    Parameters
    ----------
    operator
        Of tensors, constants and None; it returns a tuple of tensors.
    backward, setup
        As `register_autograd` takes them. By default the operator has no gradient.

    Returns
    -------
    Callable
        Takes what the operator takes.
    """
    operator.register_autograd(backward, setup_context=setup)
    operator.register_vmap(partial(_one_by_one, operator))

    class Operator(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Outputs:
            return operator(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
            setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
            return backward(ctx, *upstream)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Outputs:
            _no_forward_mode()

    def call(*inputs: Any) -> Outputs:
        forward_mode = forward_ad._current_level >= 0
        if torch.compiler.is_compiling():
            return _no_forward_mode() if forward_mode else operator(*inputs)
        if forward_mode or torch.is_grad_enabled():
            return Operator.apply(*inputs)  # type: ignore[no-untyped-call]
        return operator(*inputs)

    return call


def _one_by_one(
    operator: CustomOpDef, info: Any, dims: tuple[int | None, ...], *inputs: Any
) -> tuple[Outputs, tuple[int, ...]]:
    """Batch an operator for `torch.vmap`, which would do the same with a warning."""
    rows = [
        operator(*(x if d is None else x.select(d, j) for x, d in zip(inputs, dims, strict=True)))
        for j in range(info.batch_size)
    ]
    outputs = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
    return outputs, (0,) * len(outputs)
