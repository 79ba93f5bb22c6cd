"""New entries of the vocabulary in a network that was trained without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.model.network import Seq2Seq


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
    for table in _tables(network) if new else []:
        table[new] = table[: new[0]].float().mean(0).to(table.dtype)


def _tables(network: Seq2Seq) -> list[Tensor]:
    """What has a row per entry: embedding and head, and the bias of the logits."""
    bias = network.body.output_bias
    return [info.parameter for info in network.parts() if info.part == "embedding"] + ([] if bias is None else [bias])


def _larger(body: Any, rows: int) -> Any:
    """The same body with so many entries, the last of them as they are drawn."""
    larger = type(body)(dataclasses.replace(body.config, vocabulary=rows))
    known = body.state_dict()
    for name, tensor in larger.state_dict().items():
        tensor[: len(known[name])].copy_(known[name])
    return larger.train(body.training)
