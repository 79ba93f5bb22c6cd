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

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sourcewise.model.blocks.attention import (
    MASKED,
    CrossAttention,
    RelativePositions,
    SelfAttention,
    attend,
    attention_weights,
    merge_heads,
)
from sourcewise.model.blocks.layers import (
    Embedding,
    FeedForward,
    Linear,
    RMSNorm,
    SinusoidalPositions,
    draw_seed,
    dropout,
)
from sourcewise.model.blocks.memory import KeyValueCache, PackedMemory, TransformerMemory, padding_bias
from sourcewise.model.blocks.packing import Packing
from sourcewise.model.blocks.residual import ResidualBlock
from sourcewise.native.training import attention_part


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


class Block(ResidualBlock):
    """What blocks of encoder and decoder share: self-attention beside a residual, and a feed-forward as their last."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__(c.dropout, norm_first=c.norm_first)
        self.attention_norm = _norm(c)
        self.attention = SelfAttention(
            c.d_model, c.heads, c.d_kv, c.attention_dropout, biases=c.biases, scale=c.attention_scale
        )

    def read_packed(
        self,
        x: Tensor,
        norm: RMSNorm,
        into: Linear,
        part: SelfAttention | CrossAttention,
        bias: Tensor | None,
        keys_values: Tensor | None,
        packings: tuple[Packing, Packing],
    ) -> Tensor:
        """An attention and its residual, of rows (rows, d_model) without padding."""
        ps = (part.p, self.p) if self.training else (0.0, 0.0)
        settings = attention_part.Settings(*packings, part.d_kv, norm.eps, ps, (draw_seed(), draw_seed()))
        weights = (norm.weight, into.weight, part.out.weight)
        return attention_part.attention_part(x, *weights, bias, keys_values, settings)


class EncoderBlock(Block):
    """Self-attention and feed-forward."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__(c)
        self.feedforward_norm = _norm(c)
        self.feedforward = _feedforward(c)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(batch, slots, d_model) → the same."""
        projected, x = self.enter(x, self.attention_norm, self.attention.qkv)
        read = attend(*self.attention.split(projected, len(x)), bias, self.attention.p, self.training)
        return self.feed(self.leave(x, merge_heads(read, x), self.attention.out, self.attention_norm))

    def packed(self, x: Tensor, bias: Tensor, packing: Packing) -> Tensor:
        """The same of rows (rows, d_model) without padding."""
        own, norm = self.attention, self.attention_norm
        return self.feed(self.read_packed(x, norm, own.qkv, own, bias, None, (packing, packing)))


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
        projected, x = self.enter(x, self.attention_norm, self.attention.qkv)
        query, key, value = self.attention.split(projected, len(x) if cache is None else memory.batch)
        if cache is not None:
            key, value = cache.extend(layer, key, value, bias.shape[-1])
        read = attend(query, key, value, bias, self.attention.p, self.training)
        return self.leave(x, merge_heads(read, x), self.attention.out, self.attention_norm)

    def read_source(self, x: Tensor, memory: TransformerMemory, layer: int) -> Tensor:
        """The other parts: cross-attention and feed-forward."""
        keys, values = memory.keys_values[layer]
        projected, x = self.enter(x, self.cross_norm, self.cross.q)
        queries = self.cross.split(projected, memory.batch)
        read = attend(queries, keys, values, memory.bias, self.cross.p, self.training)
        return self.feed(self.leave(x, merge_heads(read, x), self.cross.out, self.cross_norm))

    def packed(self, x: Tensor, bias: Tensor, packing: Packing, memory: PackedMemory, layer: int) -> Tensor:
        """All of it, of rows (rows, d_model) without padding; nothing is cached."""
        own, cross = self.attention, self.cross
        x = self.read_packed(x, self.attention_norm, own.qkv, own, bias, None, (packing, packing))
        packings = (packing, memory.packing)
        return self.feed(self.read_packed(x, self.cross_norm, cross.q, cross, None, memory.heads[layer], packings))

    def cross_weights(self, x: Tensor, memory: TransformerMemory, layer: int) -> Tensor:
        """How `read_source` will weigh the memory: (batch, heads, time, slots) float32."""
        projected, _ = self.enter(x, self.cross_norm, self.cross.q)
        queries = self.cross.split(projected, memory.batch)
        return attention_weights(queries, memory.keys_values[layer][0], memory.bias)


class Transformer(nn.Module):
    """Embedding, encoder, decoder and the projection to the vocabulary."""

    positions: int | None = None  # they are relative
    joins = attends = True

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

    def encode(self, vectors: Tensor, mask: Tensor) -> TransformerMemory | PackedMemory:
        """Vectors (batch, slots, d_model) through the encoder → memory."""
        if self.packs(vectors, mask):
            return self._encode_packed(vectors, Packing(mask))
        return self.bypass(self.run_encoder(vectors, mask), mask)

    def packs(self, vectors: Tensor, mask: Tensor) -> bool:
        """Whether a network of this shape learns from these vectors (batch, slots, d_model) without their padding."""
        c = self.config
        plain = c.norm_first and not (c.layer_norm or c.biases) and c.attention_scale == 1
        return plain and attention_part.takes(vectors, c.d_kv, mask.shape[1]) and bool(mask.any(1).all())

    def _encode_packed(self, vectors: Tensor, packing: Packing) -> PackedMemory:
        x = self.encoder_embedding_norm(packing.pack(self.place_source(vectors, packing.mask)))
        x, time = dropout(x, self.config.dropout, self.training), packing.mask.shape[1]
        bias = self.encoder_positions(time, time)
        for block in self.encoder:
            x = block.packed(x, bias, packing)  # type: ignore[operator]
        x = self._leaving(self.encoder_norm(x))
        weights = [block.cross.kv.weight for block in self.decoder if isinstance(block, DecoderBlock)]
        return PackedMemory(x, packing, attention_part.to_heads(x, weights, self.config.d_kv))

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

    def run_packed(self, tokens: Tensor, memory: PackedMemory, packing: Packing) -> Tensor:
        """As `run_decoder`, of these places of the tokens (memory.batch, time) → states (rows, d_model)."""
        x = packing.pack(self.decoder_embedding_norm(self.place_target(self.embed(tokens), 0)))
        x, bias = dropout(x, self.config.dropout, self.training), self.decoder_bias(tokens.shape[1])
        for layer, block in enumerate(self.decoder):
            x = block.packed(x, bias, packing, memory, layer)  # type: ignore[operator]
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
