"""The encoder–decoder Transformer of the T5 family (Raffel et al. 2020), readable and fast.

Its blocks, by the fields of its shape, are those of other families too (`bart.py`).

```
tokens ─ embedding ─┐
                    ├─ encoder blocks ─ norm ─ memory (keys, values of every decoder layer)
features ─ bridge ──┘                              │
target tokens ─ embedding ─ decoder blocks (causal self-attention, cross-attention, feed-forward) ─ norm ─ head
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sourcewise.model.attention import (
    MASKED,
    CrossAttention,
    RelativePositions,
    SelfAttention,
    attend,
    attention_weights,
)
from sourcewise.model.layers import Embedding, FeedForward, RMSNorm, SinusoidalPositions, add_dropped, dropout
from sourcewise.model.memory import KeyValueCache, TransformerMemory, padding_bias


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a T5-family Transformer, and what others do otherwise; names as in Hugging Face's T5Config."""

    vocabulary: int
    d_model: int = 256
    d_kv: int = 64
    d_ff: int = 1024
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    activation: str = "relu"
    tied: bool = True  # one matrix embeds and predicts
    scaled: bool = True  # decoder output × d_model^-0.5 before the head: T5 yes, v1.1 and mT5 no
    dropout: float = 0.1
    attention_dropout: float = 0.1
    relative_buckets: int = 32
    relative_distance: int = 128
    decoder_positions: bool = False  # sinusoids added to the decoder's input: no longer a T5, see docs/design.md
    eps: float = 1e-6
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0
    # What other families do otherwise.
    layer_norm: bool = False  # LayerNorm, with a bias; else RMSNorm
    norm_first: bool = True  # before each part; else after its residual
    embedding_norm: bool = False  # a norm over what enters a stack
    final_norm: bool = True  # a norm over what leaves a stack
    final_dropout: bool = True  # dropout of what leaves a stack
    biases: bool = False  # of all projections
    attention_scale: float = 1.0  # times the scores
    embedding_scale: float = 1.0  # times the embedded tokens
    activation_dropout: float | None = None  # within feed-forwards; None: as elsewhere


class Block(nn.Module):
    """What blocks of encoder and decoder share: parts beside a residual, with a norm before them or after."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.norm_first, self.p = c.norm_first, c.dropout
        self.attention_norm = _norm(c)
        self.attention = SelfAttention(
            c.d_model, c.heads, c.d_kv, c.attention_dropout, biases=c.biases, scale=c.attention_scale
        )

    def beside(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """x + part(x), normed where it enters the part or where the sum leaves."""
        if self.norm_first:
            return add_dropped(x, part(norm(x)), self.p, self.training)
        out: Tensor = norm(add_dropped(x, part(x), self.p, self.training))
        return out


class EncoderBlock(Block):
    """Self-attention and feed-forward."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__(c)
        self.feedforward_norm = _norm(c)
        self.feedforward = _feedforward(c)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(batch, slots, d_model) → the same."""
        x = self.beside(x, self.attention_norm, lambda normed: self.attention(normed, bias))
        return self.beside(x, self.feedforward_norm, self.feedforward)


class DecoderBlock(Block):
    """Causal self-attention, cross-attention and feed-forward."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__(c)
        self.cross_norm = _norm(c)
        self.cross = CrossAttention(
            c.d_model, c.heads, c.d_kv, c.attention_dropout, biases=c.biases, scale=c.attention_scale
        )
        self.feedforward_norm = _norm(c)
        self.feedforward = _feedforward(c)

    def forward(
        self, x: Tensor, bias: Tensor, memory: TransformerMemory, layer: int, cache: KeyValueCache | None
    ) -> Tensor:
        """(batch × beams, time, d_model) → the same; new keys and values go into the cache."""
        x = self.read_past(x, bias, memory, layer, cache)
        return self.read_source(x, memory, layer)

    def read_past(
        self, x: Tensor, bias: Tensor, memory: TransformerMemory, layer: int, cache: KeyValueCache | None
    ) -> Tensor:
        """The first part: self-attention."""

        def read(normed: Tensor) -> Tensor:
            query, key, value = self.attention.project(normed, len(x) if cache is None else memory.batch)
            if cache is not None:
                key, value = cache.extend(layer, key, value, bias.shape[-1])
            return self.attention.merge(attend(query, key, value, bias, self.attention.p, self.training), x)

        return self.beside(x, self.attention_norm, read)

    def read_source(self, x: Tensor, memory: TransformerMemory, layer: int) -> Tensor:
        """The other parts: cross-attention and feed-forward."""
        keys, values = memory.keys_values[layer]
        x = self.beside(x, self.cross_norm, lambda normed: self.cross(normed, keys, values, memory.bias))
        return self.beside(x, self.feedforward_norm, self.feedforward)

    def cross_weights(self, x: Tensor, memory: TransformerMemory, layer: int) -> Tensor:
        """How `read_source` will weigh the memory: (batch, heads, time, slots) float32."""
        queries = self.cross.queries(self.cross_norm(x) if self.norm_first else x, memory.batch)
        return attention_weights(queries, memory.keys_values[layer][0], memory.bias)


class Transformer(nn.Module):
    """Embedding, encoder, decoder and the projection to the vocabulary."""

    positions: int | None = None  # they are relative
    joins = True

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = Embedding(c.vocabulary, c.d_model)
        self.encoder_positions = self.positions_of("encoder")
        self.encoder_embedding_norm = _norm(c, c.embedding_norm)
        self.encoder = nn.ModuleList(EncoderBlock(c) for _ in range(c.encoder_layers))
        self.encoder_norm = _norm(c, c.final_norm)
        self.decoder_positions = self.positions_of("decoder")
        self.decoder_place = SinusoidalPositions(c.d_model)
        self.decoder_embedding_norm = _norm(c, c.embedding_norm)
        self.decoder = nn.ModuleList(DecoderBlock(c) for _ in range(c.decoder_layers))
        self.decoder_norm = _norm(c, c.final_norm)
        if not c.tied:
            self.head = nn.Linear(c.d_model, c.vocabulary, bias=False)
        self.reset_parameters()

    def positions_of(self, stack: Literal["encoder", "decoder"]) -> Any:
        """The module that tells the positions of a stack."""
        c = self.config
        return RelativePositions(c.relative_buckets, c.relative_distance, c.heads, bidirectional=stack == "encoder")

    def reset_parameters(self) -> None:
        """T5's own initialisation (mesh TensorFlow; Hugging Face's `_init_weights`)."""
        c = self.config
        nn.init.normal_(self.embedding.weight, std=1.0)
        if not c.tied:
            nn.init.normal_(self.head.weight, std=c.d_model**-0.5)
        for table in (self.encoder_positions.table, self.decoder_positions.table):
            nn.init.normal_(table.weight, std=c.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                q, k, v = module.qkv.weight.chunk(3)
                _normal(q, (c.d_model * c.d_kv) ** -0.5)
                _normal(k, c.d_model**-0.5)
                _normal(v, c.d_model**-0.5)
                _normal(module.out.weight, (c.heads * c.d_kv) ** -0.5)
            elif isinstance(module, CrossAttention):
                _normal(module.q.weight, (c.d_model * c.d_kv) ** -0.5)
                _normal(module.kv.weight, c.d_model**-0.5)
                _normal(module.out.weight, (c.heads * c.d_kv) ** -0.5)
            elif isinstance(module, FeedForward):
                _normal(module.wi.weight, c.d_model**-0.5)
                _normal(module.wo.weight, c.d_ff**-0.5)

    @property
    def output_matrix(self) -> Tensor:
        """(vocabulary, d_model) weights of the projection to the vocabulary."""
        return self.embedding.weight if self.config.tied else self.head.weight

    @property
    def output_bias(self) -> Tensor | None:
        """T5 adds nothing to the logits."""
        return None

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, time) → vectors (batch, time, d_model)."""
        vectors: Tensor = self.embedding(tokens)
        scale = self.config.embedding_scale
        return vectors if scale == 1 else vectors * scale

    def encode(self, vectors: Tensor, mask: Tensor) -> TransformerMemory:
        """Vectors (batch, slots, d_model) through the encoder → memory."""
        return self.bypass(self.run_encoder(vectors, mask), mask)

    def run_encoder(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Vectors (batch, slots, d_model) through the encoder blocks; padded slots are never read."""
        x = self.encoder_embedding_norm(self.place_source(vectors, mask))
        x, bias = dropout(x, self.config.dropout, self.training), self.encoder_bias(mask)
        for block in self.encoder:
            x = block(x, bias)
        return self._leaving(self.encoder_norm(x))

    def bypass(self, vectors: Tensor, mask: Tensor) -> TransformerMemory:
        """What the decoder attends to: these vectors (batch, slots, d_model)."""
        crosses = (block.cross for block in self.decoder if isinstance(block, DecoderBlock))
        return TransformerMemory(vectors, mask, [cross.keys_values(vectors) for cross in crosses])

    def run_decoder(self, tokens: Tensor, memory: TransformerMemory, cache: KeyValueCache | None = None) -> Tensor:
        """Tokens (batch × beams, time) → states (rows, time, d_model), ready for the head."""
        x = self._entering(tokens, 0 if cache is None else cache.length)
        time = tokens.shape[1]
        if cache is None:
            bias = self.decoder_bias(time)
        else:
            hypotheses = len(tokens) // memory.batch
            bias = cache.next_bias(hypotheses, time)
        for layer, block in enumerate(self.decoder):
            x = block(x, bias, memory, layer, cache)
        if cache is not None:
            cache.advance(hypotheses, time)
        x = self._leaving(self.decoder_norm(x))
        return x * self.config.d_model**-0.5 if self.config.scaled else x

    def _entering(self, tokens: Tensor, start: int) -> Tensor:
        """Tokens (rows, time), the first at position `start` → what the first decoder block reads."""
        x = self.decoder_embedding_norm(self.place_target(self.embed(tokens), start))
        return dropout(x, self.config.dropout, self.training)

    def _leaving(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training) if self.config.final_dropout else x

    def place_source(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Vectors (batch, slots, d_model) with what tells their positions: here nothing, the scores do."""
        return vectors

    def place_target(self, vectors: Tensor, start: int) -> Tensor:
        """Vectors (rows, time, d_model), the first at position `start`, with what tells their positions."""
        return self.decoder_place(vectors, start) if self.config.decoder_positions else vectors

    def encoder_bias(self, mask: Tensor) -> Tensor | None:
        """Mask (batch, slots) → distance bias, padding barred: (batch or 1, heads, slots, slots)."""
        distances: Tensor = self.encoder_positions(mask.shape[1], mask.shape[1])[None]
        padding = padding_bias(mask)
        return distances if padding is None else distances + padding

    def decoder_bias(self, time: int) -> Tensor:
        """(heads, time, time): distance bias, the future barred."""
        distances: Tensor = self.decoder_positions(time, time)
        return distances.masked_fill(self.future(time), MASKED)

    def future(self, time: int) -> Tensor:
        """(time, time) bool, true where a key comes after the query."""
        return torch.ones(time, time, dtype=torch.bool, device=self.embedding.weight.device).triu(1)

    def cross_attention(self, tokens: Tensor, memory: TransformerMemory) -> Tensor:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, slots) float32 weights, by teacher forcing."""
        x, bias, found = self._entering(tokens, 0), self.decoder_bias(tokens.shape[1]), []
        for layer, block in enumerate(self.decoder):
            assert isinstance(block, DecoderBlock)
            x = block.read_past(x, bias, memory, layer, None)
            found.append(block.cross_weights(x, memory, layer))
            x = block.read_source(x, memory, layer)
        return torch.stack(found)

    def new_cache(self, memory: TransformerMemory, beams: int, steps: int) -> KeyValueCache:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        c = self.config
        shape = (memory.batch, c.heads, c.d_kv)
        return KeyValueCache(c.decoder_layers, shape, steps, memory.keys_values[0][0], self.decoder_bias)


def _norm(c: TransformerConfig, wanted: bool = True) -> Any:
    if not wanted:
        return nn.Identity()
    return nn.LayerNorm(c.d_model, c.eps) if c.layer_norm else RMSNorm(c.d_model, c.eps)


def _feedforward(c: TransformerConfig) -> FeedForward:
    p = c.dropout if c.activation_dropout is None else c.activation_dropout
    return FeedForward(c.d_model, c.d_ff, c.activation, p, biases=c.biases)


def _normal(weight: Tensor, std: float) -> None:
    with torch.no_grad():
        weight.normal_(0, std)
