"""What is measured: shapes of T5, their batches, and the matrix-product work of a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch, Source, pad

SEED = 17


@dataclass(frozen=True)
class Shape:
    """A T5 v1.1: gated feed-forward, a projection of its own."""

    vocabulary: int
    d_model: int
    d_ff: int
    heads: int
    layers: int  # of the encoder, and of the decoder
    d_kv: int = 64

    def config(self) -> Any:
        """The configuration of Hugging Face's class."""
        from transformers import T5Config

        return T5Config(
            vocab_size=self.vocabulary,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_layers=self.layers,
            num_decoder_layers=self.layers,
            num_heads=self.heads,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
        )


@dataclass(frozen=True)
class Load:
    """A batch: examples, longest source and longest target, in tokens; lengths vary unless they are `fixed`."""

    examples: int
    source: int
    target: int
    fixed: bool = True


SHAPES = {
    "small": Shape(32128, 512, 1024, 6, 8),
    "base": Shape(32128, 768, 2048, 12, 12),
    "a quarter of XL": Shape(32128, 2048, 5120, 32, 6),
}
LOADS = {"small": Load(128, 512, 114), "base": Load(128, 512, 114), "a quarter of XL": Load(64, 512, 114)}
TINY = Shape(96, 32, 64, 4, 2, 8)
TINY_LOADS = {name: Load(8, 32, 16, fixed=False) for name in SHAPES}


def batches(shape: Shape, load: Load) -> Iterator[Batch]:
    """Random batches on the host, without end, each of other tokens."""
    draw = torch.Generator().manual_seed(SEED)

    def rows(longest: int) -> list[list[int]]:
        shortest = longest if load.fixed else max(2, longest // 2)
        lengths = torch.randint(shortest, longest + 1, (load.examples,), generator=draw).tolist()
        return [[*torch.randint(3, shape.vocabulary, (n - 1,), generator=draw).tolist(), 1] for n in lengths]

    while True:
        tokens, lengths = pad(rows(load.source), 0)
        labels, _ = pad(rows(load.target), IGNORED)
        yield Batch(Source(tokens, lengths), labels, list(range(load.examples)))


def counted(batch: Batch) -> int:
    """Source and target tokens of a batch, without padding."""
    return int(batch.source.lengths.sum()) + batch.target_tokens


def inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The batch as Hugging Face's classes take it."""
    assert batch.source.tokens is not None
    given = {"input_ids": batch.source.tokens, "labels": batch.labels, "attention_mask": batch.source.token_mask.long()}
    return {name: each.to(device, non_blocking=True) for name, each in given.items()}


def flops(shape: Shape, load: Load) -> float:
    """Matrix-product FLOPs of a training step of a full batch: three times those of the forward pass, as of its sums.

    A product of (m, k) and (k, n) is 2 m k n. Causal attention counts half of its square.
    """
    inner, s, t = shape.heads * shape.d_kv, load.source, load.target
    attention, feedforward = 4 * shape.d_model * inner, 3 * shape.d_model * shape.d_ff
    encoder = s * (attention + feedforward) + 2 * s * s * inner
    own = t * attention + t * t * inner
    cross = 2 * (t + s) * shape.d_model * inner + 2 * s * t * inner
    decoder = own + cross + t * feedforward
    projection = t * shape.d_model * shape.vocabulary
    return 3.0 * 2 * load.examples * (shape.layers * (encoder + decoder) + projection)
