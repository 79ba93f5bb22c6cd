"""New entries of the vocabulary in a network that was trained without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.model.network import Seq2Seq

TABLES = ("embedding", "head", "logits_bias")  # what has a row an entry; the names of their tensors begin so


@torch.no_grad()
def embed_new(network: Seq2Seq, size: int, fresh: Sequence[int]) -> None:
    """Give the `fresh` ids the mean row of those before them, in the embedding and in the head.

    Where the tables have fewer than `size` rows they grow to the next multiple of 8; T5's come with rows to spare.
    """
    body: Any = network.body
    rows = body.config.vocabulary
    if size > rows:
        body = _larger(body, -(-size // 8) * 8)
        network.body, network.vocabulary = body, body.config.vocabulary
    new = sorted({*fresh, *range(rows, network.vocabulary)})
    for table in _tables(body) if new else []:
        table[new] = table[: new[0]].float().mean(0).to(table.dtype)


def _tables(body: Any) -> list[Tensor]:
    named = (*body.named_parameters(), *body.named_buffers())
    return [t for name, t in named if name.startswith(TABLES) and t.shape[:1] == (body.config.vocabulary,)]


def _larger(body: Any, rows: int) -> Any:
    """The same body with so many entries, the last of them as they are drawn."""
    larger = type(body)(dataclasses.replace(body.config, vocabulary=rows))
    known = body.state_dict()
    for name, tensor in larger.state_dict().items():
        tensor[: len(known[name])].copy_(known[name])
    return larger.train(body.training)
