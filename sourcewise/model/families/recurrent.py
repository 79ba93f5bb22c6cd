"""Recurrent encoder–decoders, with one fixed vector of the source or with attention to all its states.

```
tokens ─ embedding ─┐
                    ├─ encoder layers, each in both directions ─ states and their keys; the last states as one vector
features ─ bridge ──┘                                            │
target tokens ─ embedding ─ decoder layers, the first of which reads the source at every step ─ readout ─ head
```

`attention: none` is Cho et al. 2014 and Sutskever et al. 2014: the encoder's last states initialise the decoder and are
an input of every step; the decoder sees nothing else of the source. The encoder is bidirectional, as with attention, so
that only the attention differs. (Reversing the source, as Sutskever did, would only swap the directions.) `attention:
bahdanau` is Bahdanau et al. 2015. GRUs are cuDNN's, with the reset after the product; the readout is a tanh layer, not
maxout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sourcewise.config import ModelConfig
from sourcewise.data.layout import Layout
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.blocks.recurrent_layers import (
    CARRIES,
    AttentiveLayer,
    DecoderLayer,
    EncoderLayer,
    Order,
    Read,
    RecurrentMemory,
    reset_cell,
)
from sourcewise.model.network import Body, options_of
from sourcewise.model.weights.own import read_own, write_own

MODEL_TYPES = ("sourcewise-rnn",)  # of config.json


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape of a recurrent encoder–decoder."""

    vocabulary: int
    d_model: int = 256  # embeddings, encoder states (half per direction), decoder states, attention, readout; even
    encoder_layers: int = 1
    decoder_layers: int = 1
    cell: Literal["gru", "lstm"] = "gru"
    attention: Literal["bahdanau", "none"] = "bahdanau"
    tied: bool = True  # one matrix for embedding and head
    dropout: float = 0.1  # of embeddings, between layers, of contexts and of the readout; never on states over time
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0


@dataclass
class RecurrentCache:
    """The decoder's state after the tokens so far."""

    state: Tensor  # (layers × carries, hypotheses, d_model)

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses (sources, hypotheses of each), in this order."""
        self.state = self.state[:, rows.flatten()]

    def join(self, other: RecurrentCache) -> None:
        """Add the hypotheses of another cache."""
        self.state = torch.cat((self.state, other.state), dim=1)


class Recurrent(Body):
    """Embedding, encoder, decoder and the projection to the vocabulary."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding, self.dropout = nn.Embedding(c.vocabulary, c.d_model), nn.Dropout(c.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(c.cell, c.d_model) for _ in range(c.encoder_layers))
        carried = c.decoder_layers * CARRIES[c.cell]
        self.decoder_start = nn.ModuleList(nn.Linear(c.d_model, c.d_model) for _ in range(carried))
        self.attends = c.attention == "bahdanau"
        first = AttentiveLayer(c.cell, c.d_model) if self.attends else DecoderLayer(c.cell, c.d_model, reads=True)
        others = (DecoderLayer(c.cell, c.d_model, reads=False) for _ in range(c.decoder_layers - 1))
        self.decoder = nn.ModuleList([first, *others])
        self.decoder_readout = nn.Linear(3 * c.d_model, c.d_model)
        if not c.tied:
            self.head = nn.Linear(c.d_model, c.vocabulary, bias=False)

    def reset_parameters(self) -> None:
        """Cells by `reset_cell`, other matrices by Glorot; embedding and head with deviation d_model^-0.5."""
        deviation = self.config.d_model**-0.5
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, AttentiveLayer):
                nn.init.normal_(module.score, std=deviation)
            elif isinstance(module, (nn.GRU, nn.LSTM)):
                reset_cell(module)
        nn.init.normal_(self.embedding.weight, std=deviation)
        if not self.config.tied:
            nn.init.normal_(self.head.weight, std=deviation)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens → vectors (..., d_model), times √d_model, so that their deviation is about 1, as behind a bridge."""
        return super().embed(tokens) * math.sqrt(self.config.d_model)

    def encode(self, vectors: Tensor, layout: Layout) -> RecurrentMemory:
        """Vectors (batch, width, d_model) through the encoder → memory, with the last states of both directions."""
        orders = Order(layout, vectors.device), Order(layout, vectors.device, backwards=True)
        x = vectors.transpose(0, 1)
        for layer in self.encoder:
            x = layer(self.dropout(x), orders)
        ends = [order.end(half) for order, half in zip(orders, x.chunk(2, dim=2), strict=True)]
        return self._memory(x.transpose(0, 1), layout, torch.cat(ends, dim=1))

    def bypass(self, vectors: Tensor, layout: Layout) -> RecurrentMemory:
        """Memory of the vectors (batch, width, d_model) without an encoder; its single vector is their mean."""
        real = layout.on(vectors.device).mask[..., None].to(vectors.dtype)
        return self._memory(vectors, layout, (vectors * real).sum(1) / real.sum(1))

    def _memory(self, states: Tensor, layout: Layout, vector: Tensor) -> RecurrentMemory:
        start = torch.stack([torch.tanh(linear(vector)) for linear in self.decoder_start])
        states, first = self.dropout(states), self.decoder[0]
        keys = first.key(states) if isinstance(first, AttentiveLayer) else None
        return RecurrentMemory(layout, states, keys, self.dropout(vector), start)

    def new_cache(self, memory: RecurrentMemory, beams: int, steps: int) -> RecurrentCache:
        """The state before the first token of `memory.batch * beams` hypotheses, for any number of steps."""
        return RecurrentCache(memory.start.repeat_interleave(beams, dim=1))

    def run_decoder(
        self,
        tokens: Tensor,
        memory: RecurrentMemory,
        cache: RecurrentCache | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """Tokens (batch × beams, time) → states (rows, time, d_model), ready for the head."""
        y = self.dropout(self.embed(tokens.T))
        reads = self._read(y, memory, cache or self.new_cache(memory, len(tokens) // memory.batch, 0))
        assert reads[0].context is not None
        x = torch.cat((reads[-1].shown, y, reads[0].context), dim=2)
        return self.dropout(torch.tanh(self.decoder_readout(x))).transpose(0, 1)

    def cross_attention(self, tokens: Tensor, memory: RecurrentMemory) -> Tensor | None:
        """Tokens (memory.batch, time) → (1, batch, 1, time, width) float32 weights; None without attention."""
        weights = self._read(self.embed(tokens.T), memory, self.new_cache(memory, 1, 0))[0].weights
        return None if weights is None else weights.permute(1, 2, 0, 3)[None]

    def _read(self, x: Tensor, memory: RecurrentMemory, cache: RecurrentCache) -> list[Read]:
        """Inputs (time, rows, d_model) through all layers; updates the cache."""
        reads: list[Read] = []
        for layer, state in zip(self.decoder, cache.state.split(CARRIES[self.config.cell]), strict=True):
            reads.append(layer(x, state, memory))
            x = self.dropout(reads[-1].shown)
        cache.state = torch.cat([read.state for read in reads])
        return reads


# ── from a recipe, and between folder and body ────────────────────────────────────────────────────────────────────────


def make(model: ModelConfig, tokenizer: Tokenizer, features: bool) -> Recurrent:
    """A new network for a recipe."""
    body = Recurrent(RecurrentConfig(**options_of(RecurrentConfig, model, tokenizer)))
    body.reset_parameters()
    return body


read = partial(read_own, Recurrent, RecurrentConfig, ("cell", "attention"))
write = partial(write_own, MODEL_TYPES[0])
