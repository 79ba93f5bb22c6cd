"""Checks that weights are finite, and finds the module whose output is the first that is not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.errors import NotFinite


def damage(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first tensor with NaN or infinity, in words: name, number of such values, place of the first.

    None if all are finite. Only floating-point tensors are checked.
    """
    for name, tensor in tensors:
        tensor = tensor.detach()
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        if all(math.isfinite(end) for end in tensor.aminmax()):  # one pass without a mask: NaN if any entry is
            continue
        wrong = ~torch.isfinite(tensor.float())
        count, first = int(wrong.sum()), tuple(wrong.nonzero()[0].tolist())
        value = float(tensor[first])
        what = "NaN" if math.isnan(value) else "infinite"
        where = f"the first at {list(first)}" if first else "it is one number"
        return f"{name}: {count:,} of {tensor.numel():,} values are not finite ({what}; {where})"
    return None


def damaged_weights(network: Any) -> str | None:
    """`damage` of a network's weights; None if all are finite, or if it is no torch module.

    Buffers may mask tokens by minus infinity.
    """
    if not isinstance(network, nn.Module):
        return None
    kept = {name for name, _ in network.named_buffers()} & set(network.state_dict())
    buffers = ((n, b.masked_fill(b == -math.inf, 0)) for n, b in network.named_buffers() if n in kept)
    return damage(network.named_parameters()) or damage((n, b) for n, b in buffers if b.is_floating_point())


def state_of(network: Any) -> tuple[tuple[int, int], ...]:
    """A value that changes when weights are written or replaced in usual ways: cheap to compare, but no proof."""
    if not isinstance(network, nn.Module):
        return ()
    tensors = (*network.parameters(), *network.buffers())
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def refuse_damaged(network: Any, name: str) -> None:
    """Raises NotFinite, with the tensor's name, if a weight is NaN or infinite."""
    if (found := damaged_weights(network)) is not None:
        raise NotFinite(f"{name}: {found}; nothing true comes out of such weights: load a checkpoint from before")


def not_finite(network: Any, what: str, again: Callable[[], Any] | None = None) -> NotFinite:
    """The error for NaN in `what` (such as "the logits"): names the damaged tensor, or the module that overflows.

    `again` repeats the computation to find that module.
    """
    if (found := damaged_weights(network)) is not None:
        return NotFinite(f"{what} are not finite: {found}; load a checkpoint from before")
    dtype = next((p.dtype for p in network.parameters()), None) if isinstance(network, nn.Module) else None
    in_words = "" if dtype is None else f" in {str(dtype).removeprefix('torch.')}"
    place = None if again is None else first_overflow(network, again)
    said = f"{what} are not finite although all weights are: the arithmetic{in_words} overflows"
    cure = "take fp32" if dtype in (torch.float16, torch.bfloat16) else "its weights, or its sources, are far too large"
    return NotFinite(f"{said}{f', first in {place}' if place else ''}; {cure}")


def first_overflow(network: Any, run: Callable[[], Any]) -> str | None:
    """The first module, in the order of computation, with an output that is not finite during `run`; None: none."""
    if not isinstance(network, nn.Module):
        return None
    found: list[str] = []

    def seen(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        values = output if isinstance(output, (tuple, list)) else (output,)
        floats = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
        if any(bool(torch.isnan(v).any() | (v == math.inf).any()) for v in floats):
            found.append(name)

    with contextlib.ExitStack() as hooks, contextlib.suppress(Exception):  # it may fail again
        for name, module in network.named_modules():
            if name:
                hooks.callback(module.register_forward_hook(partial(seen, name)).remove)
        run()
    return found[0] if found else None
