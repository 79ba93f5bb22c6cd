"""The gradient of a bf16 embedding on a CPU, by the rows that were looked up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Lookup(NamedTuple):
    """Rows of an embedding that were looked up, as a leaf: what its gradient is put into is the embedding's."""

    weight: Tensor  # (vocabulary, width)
    tokens: Tensor  # (...)
    vectors: Tensor  # (..., width)


_looked_up = threading.local()


@contextlib.contextmanager
def lookups() -> Iterator[list[Lookup]]:
    """Within, on this thread: bf16 embeddings on a CPU note what is looked up in them, to be given to `put_lookups`.

    autograd would make the gradient of a whole matrix of each, and add it to that of a tied head in a third, all in
    bf16, in which frequent tokens get lost.
    """
    _looked_up.found = []
    try:
        yield _looked_up.found
    finally:
        del _looked_up.found


def put_lookups(found: Sequence[Lookup], gradients: Sequence[Tensor], weight: Tensor, to: Tensor | None) -> Tensor:
    """The gradient by `weight`, with those by what was looked up in it; `to`, which is changed, is what it had else.

    The rows' sums are fp32, rounded once.
    """
    of = [(look.tokens.flatten(), g.flatten(0, -2)) for look, g in zip(found, gradients, strict=True)]
    tokens, rows = (torch.cat(each) for each in zip(*of, strict=True))
    met, place = tokens.unique(return_inverse=True)
    to = torch.zeros_like(weight) if to is None else to.contiguous()
    sums = to.index_select(0, met).float().index_add_(0, place, rows.float())
    return to.index_copy_(0, met, sums.to(to.dtype))


def embedding(module: Any, tokens: Tensor) -> Tensor:
    """(...) → (..., width), noted within `lookups`."""
    weight: Tensor = module.weight
    found: list[Lookup] | None = getattr(_looked_up, "found", None)
    learns = weight.requires_grad and torch.is_grad_enabled()
    if found is None or not learns or weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return type(module).forward(module, tokens)  # type: ignore[no-any-return]
    vectors = F.embedding(tokens, weight.detach()).requires_grad_()
    found.append(Lookup(weight, tokens, vectors))
    return vectors
