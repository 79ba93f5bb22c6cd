"""The encoder–decoder Transformer of the T5 family (Raffel et al. 2020).

By the fields of its configuration its blocks are also those of other families (`bart.py`).

```
tokens ─ embedding ─┐
                    ├─ encoder blocks ─ norm ─ memory (keys, values of every decoder layer)
features ─ bridge ──┘                              │
target tokens ─ embedding ─ decoder blocks (causal self-attention, cross-attention, feed-forward) ─ norm ─ head
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model import attention
from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.cache import KeyValueCache
from sourcewise.model.blocks.memory import Memory
from sourcewise.model.blocks.positions import RelativePositions, SinusoidalPositions, distances
from sourcewise.model.blocks.sublayers import CrossAttention, Extend, FeedForward, Residual, SelfAttention
from sourcewise.model.blocks.window import Window
from sourcewise.model.network import Body

Attending = TypeVar("Attending", SelfAttention, CrossAttention)


@dataclass(frozen=True)
class StackConfig:
    """The shape of T5's blocks, in an encoder–decoder or a decoder alone; names as in Hugging Face's T5Config."""

    vocabulary: int
    d_model: int = 256
    d_kv: int = 64
    d_ff: int = 1024
    heads: int = 4
    activation: str = "relu"
    tied: bool = True  # one matrix for embedding and head
    scaled: bool = True  # decoder output × d_model^-0.5 before the head: T5 yes, v1.1 and mT5 no
    dropout: float = 0.1
    attention_dropout: float = 0.1
    relative_buckets: int = 32
    relative_distance: int = 128
    eps: float = 1e-6
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0


@dataclass(frozen=True)
class TransformerConfig(StackConfig):
    """The shape of a T5-family Transformer, and variants of other families."""

    encoder_layers: int = 4
    decoder_layers: int = 4
    decoder_positions: bool = False  # sinusoids added to the decoder's input: no T5 then, see docs/decisions/013
    # Variants of other families.
    layer_norm: bool = False  # LayerNorm, with a bias; else RMSNorm
    norm_first: bool = True  # pre-norm; else post-norm
    embedding_norm: bool = False  # a norm of a stack's inputs
    final_norm: bool = True  # a norm of a stack's outputs
    final_dropout: bool = True  # dropout of a stack's outputs
    biases: bool = False  # of all projections
    attention_scale: float = 1.0  # times the scores
    embedding_scale: float = 1.0  # times the embedded tokens
    activation_dropout: float | None = None  # within feed-forwards; None: the general dropout


class Arrangement(nn.Module):
    """Keeps the padded layout; native code replaces `forward` to pack it if attention supports packed layouts."""

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """x (batch, width, d_model) and its layout → both unchanged, or (rows, d_model) and the packed layout."""
        return x, layout


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.residual = Residual(c.dropout, norm_first=c.norm_first)
        self.attention_norm, self.attention = _norm(c), _attention(SelfAttention, c)
        self.feedforward_norm, self.feedforward = _norm(c), _feedforward(c)

    def forward(self, x: Tensor, layout: Layout, bias: Tensor | None) -> Tensor:
        """x (…, d_model) in this layout → the same shape."""
        x = self.residual(x, self.attention_norm, self.attention, layout, bias)
        return self.residual(x, self.feedforward_norm, self.feedforward)


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention and feed-forward."""

    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.residual = Residual(c.dropout, norm_first=c.norm_first)
        self.attention_norm, self.attention = _norm(c), _attention(SelfAttention, c)
        self.cross_norm, self.cross = _norm(c), _attention(CrossAttention, c)
        self.feedforward_norm, self.feedforward = _norm(c), _feedforward(c)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        bias: Tensor,
        memory: Memory,
        place: int,
        extend: Extend | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """x (…, d_model) in this layout → the same shape; `place` is the index of the block in the decoder.

        `extend` adds new keys and values to a cache; weights over the memory are appended to `seen`.
        """
        x = self.residual(x, self.attention_norm, self.attention, layout, bias, extend)
        x = self.residual(x, self.cross_norm, self.cross, layout, memory, place, seen)
        return self.residual(x, self.feedforward_norm, self.feedforward)


class Transformer(Body):
    """Embedding, encoder, decoder and the projection to the vocabulary; positions are relative."""

    records = True

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.d_model)
        self.arrange, self.dropout = Arrangement(), nn.Dropout(c.dropout)
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
        """The position encoding of a stack."""
        c = self.config
        return RelativePositions(c.relative_buckets, c.relative_distance, c.heads, bidirectional=stack == "encoder")

    def reset_parameters(self) -> None:
        """T5's initialisation (mesh TensorFlow; Hugging Face's `_init_weights`)."""
        c = self.config
        nn.init.normal_(self.embedding.weight, std=1.0)
        if not c.tied:
            nn.init.normal_(self.head.weight, std=c.d_model**-0.5)
        for table in (self.encoder_positions.table, self.decoder_positions.table):
            nn.init.normal_(table.weight, std=c.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                q, k, v = module.qkv.weight.chunk(3)
                nn.init.normal_(q, std=(c.d_model * c.d_kv) ** -0.5)
                nn.init.normal_(k, std=c.d_model**-0.5)
                nn.init.normal_(v, std=c.d_model**-0.5)
                nn.init.normal_(module.out.weight, std=(c.heads * c.d_kv) ** -0.5)
            elif isinstance(module, CrossAttention):
                nn.init.normal_(module.q.weight, std=(c.d_model * c.d_kv) ** -0.5)
                nn.init.normal_(module.kv.weight, std=c.d_model**-0.5)
                nn.init.normal_(module.out.weight, std=(c.heads * c.d_kv) ** -0.5)
            elif isinstance(module, FeedForward):
                nn.init.normal_(module.wi.weight, std=c.d_model**-0.5)
                nn.init.normal_(module.wo.weight, std=c.d_ff**-0.5)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, time) → vectors (batch, time, d_model)."""
        vectors, scale = super().embed(tokens), self.config.embedding_scale
        return vectors if scale == 1 else vectors * scale

    def encode(self, vectors: Tensor, layout: Layout) -> Memory:
        """Vectors (batch, width, d_model) through the encoder → memory."""
        return Memory(*self.run_encoder(vectors, layout))

    def bypass(self, vectors: Tensor, layout: Layout) -> Memory:
        """Memory of the vectors (batch, width, d_model) without an encoder."""
        return Memory(layout, vectors)

    def keep(self, memory: Memory) -> Memory:
        """The memory with keys and values of every decoder layer, computed once for all steps of a generation."""
        crosses = [block.cross for block in self.decoder if isinstance(block, DecoderBlock)]
        memory.keys_values = [cross.keys_values(memory.states) for cross in crosses]
        return memory

    def run_encoder(self, vectors: Tensor, layout: Layout) -> tuple[Layout, Tensor]:
        """Vectors (batch, width, d_model) through the encoder blocks, and their new layout; padding is never read."""
        x, layout = self.arrange(self.place_source(vectors, layout), layout)
        x, bias = self.dropout(self.encoder_embedding_norm(x)), self.encoder_bias(layout)
        bias = _for_layers(self.encoder, bias, x)
        for block in self.encoder:
            x = block(x, layout, bias)
        return layout, self._leaving(self.encoder_norm(x))

    def run_decoder(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: KeyValueCache | Window | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """Tokens (batch × beams, time) → states (rows, time, d_model), ready for the head.

        With a packed `layout` of the tokens, only the states of its positions are returned, (rows, d_model).
        """
        x = self._leaving(self.decoder_norm(self._run_blocks(tokens, memory, cache, layout)))
        return x * self.config.d_model**-0.5 if self.config.scaled else x

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32 weights, by teacher forcing."""
        seen: list[Tensor] = []
        self._run_blocks(tokens, memory, seen=seen)
        return torch.stack(seen)

    def _run_blocks(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: KeyValueCache | Window | None = None,
        layout: Layout | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        rows, time = tokens.shape
        beams = rows // memory.batch
        if cache is None and beams > 1:  # without a cache each hypothesis has its own memory
            memory = memory.select(torch.arange(memory.batch, device=tokens.device).repeat_interleave(beams))
        x = self.decoder_embedding_norm(self.place_target(self.embed(tokens), 0 if cache is None else cache.length))
        if layout is not None:
            x = layout.pack(x)
        elif cache is not None:
            x = x.view(memory.batch, beams * time, -1)  # hypotheses of a source share its keys
        x = self.dropout(x)
        layout = layout or Layout.whole(*x.shape[:2])
        bias = self.decoder_bias(time) if cache is None else cache.next_bias(beams, time)
        bias = _for_layers(self.decoder, bias, x)
        _ = memory.bias  # made before the blocks, which are then graphs of tensors alone
        for place, block in enumerate(self.decoder):
            x = block(x, layout, bias, memory, place, None if cache is None else cache.layer(place), seen)
        if cache is None:
            return x
        cache.advance(beams, time)
        return x.view(rows, time, -1)

    def _leaving(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.config.final_dropout else x

    def place_source(self, vectors: Tensor, layout: Layout) -> Tensor:
        """Vectors (batch, width, d_model) with absolute positions added: unchanged here, positions are relative."""
        return vectors

    def place_target(self, vectors: Tensor, start: int | Tensor) -> Tensor:
        """Vectors (rows, time, d_model), the first at position `start`, with absolute positions added, if any."""
        return self.decoder_place(vectors, start) if self.config.decoder_positions else vectors

    def encoder_bias(self, layout: Layout) -> Tensor | None:
        """Relative bias, with a mask of padding in a padded layout: (batch or 1, heads, width, width)."""
        device = self.embedding.weight.device
        bias: Tensor = self.encoder_positions(distances(layout.width, layout.width, device))
        if layout.packed:
            return bias
        padding = attention.padding_bias(layout, device)
        return bias[None] if padding is None else bias[None] + padding

    def decoder_bias(self, time: int) -> Tensor:
        """(heads, time, time): relative bias with a causal mask."""
        bias: Tensor = self.decoder_positions(distances(time, time, self.embedding.weight.device))
        return bias.masked_fill(self.future(time), MASKED)

    def future(self, time: int) -> Tensor:
        """(time, time) bool, true if the key is after the query."""
        return distances(time, time, self.embedding.weight.device) > 0

    def new_cache(self, memory: Memory, beams: int, steps: int) -> KeyValueCache:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        c = self.config
        like = memory.keys_values[0][0] if memory.keys_values else memory.states
        return KeyValueCache(c.decoder_layers, (memory.batch, c.heads, c.d_kv), steps, like, self.decoder_bias)

    def new_window(self, cache: KeyValueCache, hypotheses: int, tokens: int) -> Window:
        """The next tokens of a cache, as steps that can be recorded."""
        self.decoder_place.reserve(cache.length + tokens)
        return Window(cache, hypotheses, tokens)


def _for_layers(blocks: Any, bias: Any, x: Tensor) -> Any:
    """The bias as all blocks of a stack read it."""
    return attention.for_layers(blocks[0].attention.attend, bias, x) if len(blocks) else bias


def _attention(kind: type[Attending], c: TransformerConfig) -> Attending:
    sizes = c.d_model, c.heads, c.d_kv, c.attention_dropout
    return kind(*sizes, biases=c.biases, scale=c.attention_scale)


def _norm(c: TransformerConfig, wanted: bool = True) -> Any:
    if not wanted:
        return nn.Identity()
    return nn.LayerNorm(c.d_model, c.eps) if c.layer_norm else nn.RMSNorm(c.d_model, c.eps)


def _feedforward(c: TransformerConfig) -> FeedForward:
    p = c.dropout if c.activation_dropout is None else c.activation_dropout
    return FeedForward(c.d_model, c.d_ff, c.activation, p, biases=c.biases)
