"""Activation checkpointing: what was computed is forgotten, and computed again in the backward pass.

`blocks` leaves of a block only its inputs in memory, and costs about a third more arithmetic. `light` computes only the
activations and dropout of feed-forwards, and what norms give, again, no product: that is large and cheap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sourcewise.errors import RequestError
from sourcewise.model.attention import Attention
from sourcewise.model.blocks.sublayers import FeedForward, Residual
from sourcewise.native.training.draws import drawn_again


def checkpoint_blocks(network: Any, how: str = "blocks") -> None:
    """Checkpoint every block of a network, or all that transformers can of its model. Raises RequestError."""
    model = getattr(network.body, "model", None)
    if model is not None:
        if how == "light":
            raise RequestError("train.checkpointing: light is for our own families; transformers can do blocks")
        if not getattr(model, "supports_gradient_checkpointing", False):
            raise RequestError(
                f"train.checkpointing: transformers cannot for a {model.config.model_type}; leave it out"
            )
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return
    blocks = [block for stack in network.stacks.values() for block in stack]
    if not all(any(isinstance(m, Attention) for m in block.modules()) for block in blocks):
        raise RequestError(
            "train.checkpointing: a recurrent network is computed along time, not by blocks; leave it out"
        )
    for block in blocks:
        if how == "blocks":
            block.forward = _forgetting(block.forward)
            continue
        for layer in block.modules():
            if isinstance(layer, FeedForward):
                layer.forward = _light(layer)  # type: ignore[assignment, method-assign]
            elif isinstance(layer, Residual) and "forward" not in vars(layer):  # else it is native code
                layer.forward = _normed_again(layer)  # type: ignore[method-assign]


def _forgetting(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same computation, which is repeated in the backward pass with the same random draws."""

    def run(*given: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given)
        return checkpoint(forward, *given, use_reentrant=False, context_fn=_contexts)

    return run


def _light(layer: FeedForward) -> Callable[[Tensor], Tensor]:
    """The same feed-forward, of which the first product is kept, and what follows it is not.

    Computing again stops before the last product, whose result nobody needs.
    """
    after = _forgetting(lambda projected: layer.wo(layer.between(projected)))
    return lambda x: after(layer.wi(x))  # type: ignore[no-any-return]


def _normed_again(residual: Residual) -> Callable[..., Tensor]:
    """The same residual, whose layer does not keep what the norm gives it."""
    usual = residual.forward

    def run(x: Tensor, norm: nn.Module, layer: nn.Module, *given: Any) -> Tensor:
        if not residual.norm_first or not torch.is_grad_enabled():
            return usual(x, norm, layer, *given)
        read = norm(x)
        place = read.untyped_storage()._cdata

        def pack(kept: Tensor) -> Any:
            return tuple(kept.shape) if kept.untyped_storage()._cdata == place else kept

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            with torch.no_grad():
                return norm(x).view(kept)  # type: ignore[no-any-return]

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            found = layer(read, *given)
        return x + residual.dropout(found)  # type: ignore[no-any-return]

    return run


def _contexts() -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
    return contextlib.nullcontext(), drawn_again()
