"""Adds entries of the vocabulary to a trained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.model.network import Seq2Seq


@torch.no_grad()
def embed_new(network: Seq2Seq, size: int, fresh: Sequence[int]) -> None:
    """Initialise the rows of `fresh` ids, in embedding and head, by the mean of the rows before them.

    Tables with fewer than `size` rows grow to the next multiple of 8; T5's have spare rows.
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
    """The tables with one row per entry: embedding, head, and the bias of the logits."""
    bias = network.body.output_bias
    return [info.parameter for info in network.parts() if info.part == "embedding"] + ([] if bias is None else [bias])


def _larger(body: Any, rows: int) -> Any:
    """A body with `rows` entries, of which the new ones are initialised at random."""
    larger = type(body)(dataclasses.replace(body.config, vocabulary=rows))
    known = body.state_dict()
    for name, tensor in larger.state_dict().items():
        tensor[: len(known[name])].copy_(known[name])
    return larger.train(body.training)
