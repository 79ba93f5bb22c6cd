"""The weights of self-attention, seen while a network computes; its modules know nothing of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from threading import get_ident
from typing import Any

from torch import Tensor, nn

from sourcewise.model.attention import eager
from sourcewise.model.blocks.sublayers import SelfAttention

Seen = dict[str, list[Tensor]]  # stack → (batch, heads, queries, keys) float32 of each of its layers


@contextlib.contextmanager
def self_attention_of(stacks: Mapping[str, Iterable[nn.Module]]) -> Iterator[Seen]:
    """Within: what the blocks of `encoder` and `decoder` compute is kept, by the name of their stack."""
    seen: Seen = {name: [] for name in stacks}
    handles = []
    for name, blocks in stacks.items():
        for block in blocks:
            layer = getattr(block, "attention", None)
            if isinstance(layer, SelfAttention):
                handles.append(layer.attend.register_forward_pre_hook(partial(_keep, get_ident(), seen[name])))
                handles.append(layer.register_forward_pre_hook(_nothing))  # native code leaves a watched layer whole
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(thread: int, kept: list[Tensor], module: nn.Module, given: tuple[Any, ...]) -> None:
    if thread == get_ident():  # another one may compute with the same network
        q, k, _, own, other, bias = given
        kept.append(eager.weights(q, k, own, other, bias))


def _nothing(module: nn.Module, given: tuple[Any, ...]) -> None:
    """A hook that changes nothing."""


@contextlib.contextmanager
def self_attention_of_theirs(model: Any) -> Iterator[Seen]:
    """The same of a model of transformers, which gives weights where it is asked for them, one pass at a time."""
    parts = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
    seen: Seen = {name: [] for name in parts}
    usual, handles = model.config._attn_implementation, []
    for name, part in parts.items():
        handles.append(part.register_forward_pre_hook(_asking, with_kwargs=True))
        handles.append(part.register_forward_hook(partial(_keep_answer, get_ident(), seen[name])))
    model.set_attn_implementation("eager")  # the only one that returns weights
    try:
        yield seen
    finally:
        model.set_attn_implementation(usual)
        for handle in handles:
            handle.remove()


def _asking(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**named, "output_attentions": True, "return_dict": True}


def _keep_answer(thread: int, kept: list[Tensor], module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
    """Keep the weights of the layers that attend to all positions; those by blocks have others, or several."""
    weights = getattr(answer, "attentions", None) or ()
    if thread == get_ident():
        kept[:] = [each.float() for each in weights if isinstance(each, Tensor) and each.dim() == 4]
