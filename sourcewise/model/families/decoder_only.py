"""A decoder-only network, for comparison with encoder–decoders: it reads source and target as one sequence.

```
source tokens ─ embedding ─┐
                           ├─ blocks ─ memory (every block's keys and values of the source)
features ─ bridge ─────────┘    │ the same blocks
start, target tokens ─ embedding ─ blocks (self-attention over source and past) ─ norm ─ head
```

The start token separates the two, and the loss is that of the target alone (Liu et al. 2018, "T-D"). With the prefix
`causal`, a source token attends to earlier ones; with `full`, to all: the prefix LM (Raffel et al. 2020, section 3.2).
Computing source and target one after the other gives the same result, but the source is computed only once.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sourcewise.config import ModelConfig
from sourcewise.data.layout import Layout
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.attention import MASKED, eager, merge_heads
from sourcewise.model.blocks.cache import KeyValueCache
from sourcewise.model.blocks.memory import Memory
from sourcewise.model.blocks.positions import RelativePositions, SinusoidalPositions
from sourcewise.model.blocks.sublayers import FeedForward, ForDecoding, Residual, SelfAttention
from sourcewise.model.families import t5
from sourcewise.model.families.transformer import StackConfig
from sourcewise.model.network import Body
from sourcewise.model.parts import size
from sourcewise.model.weights.own import read_own, write_own

MODEL_TYPES = ("sourcewise-decoder",)  # of config.json
STEPS = (16, 8, 4, 2, 1)  # d_ff is a multiple of the first of these that is precise enough
NEAR = 0.002  # largest relative difference in parameters between networks of the same size, if d_ff allows it


@dataclass(frozen=True)
class DecoderOnlyConfig(StackConfig):
    """The shape of a decoder-only stack; its blocks are those of T5's encoder."""

    layers: int = 8
    prefix: Literal["causal", "full"] = "causal"  # attention within the source
    target_positions: bool = False  # sinusoids added to the vectors of the target


@dataclass
class Reading:
    """Arguments of a stack's blocks besides x, for a source alone or for a target after its memory."""

    layout: Layout  # of x
    bias: Tensor  # of the scores within x
    memory: Memory
    of_source: Tensor | None = None  # bias of a target's scores on the source; None: x is the source
    cache: KeyValueCache | None = None
    seen: list[Tensor] | None = None  # list to which weights over the source are appended
    only_keys: bool = False  # whether the last block's output for a source is unused


class PrefixAttention(SelfAttention):
    """Self-attention within a source, whose keys and values become the memory, or of a target to both."""

    def __init__(self, c: DecoderOnlyConfig) -> None:
        super().__init__(c.d_model, c.heads, c.d_kv, c.attention_dropout)
        self.for_decoding = ForDecoding()

    def between(self, projected: Tensor, place: int, given: Reading) -> Tensor:  # type: ignore[override]
        """The attention of the block `place`."""
        if given.of_source is None:
            return merge_heads(self.attend(*self.remember(projected, given), given.layout, given.layout, given.bias))
        q, k, v = self.split(projected)
        k, v = (self.for_decoding(k), self.for_decoding(v)) if given.cache is None else given.cache.layer(place)(k, v)
        source, own = (*given.memory.keys_values[place], given.of_source), (k, v, given.bias)
        return merge_heads(eager.attend_to_both(q, source, own, self.attend.dropout, given.seen))

    def remember(self, projected: Tensor, given: Reading) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of a source, whose keys and values are added to its memory."""
        q, k, v = self.split(projected)
        given.memory.keys_values.append((self.for_decoding(k), self.for_decoding(v)))
        return q, k, v


class Block(nn.Module):
    """Self-attention and feed-forward, each with pre-norm and residual."""

    def __init__(self, c: DecoderOnlyConfig) -> None:
        super().__init__()
        self.residual = Residual(c.dropout)
        self.attention_norm, self.attention = nn.RMSNorm(c.d_model, c.eps), PrefixAttention(c)
        self.feedforward_norm = nn.RMSNorm(c.d_model, c.eps)
        self.feedforward = FeedForward(c.d_model, c.d_ff, c.activation, c.dropout)

    def forward(self, x: Tensor, place: int, given: Reading) -> Tensor:
        """(rows, time, d_model) → the same shape."""
        if given.only_keys:
            self.attention.remember(self.attention.qkv(self.attention_norm(x)), given)
            return x
        x = self.residual(x, self.attention_norm, self.attention, place, given)
        return self.residual(x, self.feedforward_norm, self.feedforward)


class DecoderOnly(Body):
    """Embedding, one stack of blocks and the projection to the vocabulary; positions are relative."""

    def __init__(self, config: DecoderOnlyConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.d_model)
        self.decoder_positions = RelativePositions(
            c.relative_buckets, c.relative_distance, c.heads, bidirectional=c.prefix == "full"
        )
        self.place, self.dropout = SinusoidalPositions(c.d_model), nn.Dropout(c.dropout)
        self.decoder = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.decoder_norm = nn.RMSNorm(c.d_model, c.eps)
        if not c.tied:
            self.head = nn.Linear(c.d_model, c.vocabulary, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The initialisation of T5's encoder (see Transformer)."""
        c = self.config
        self.embedding.weight.normal_(0, 1.0)
        self.decoder_positions.table.weight.normal_(0, c.d_model**-0.5)
        if not c.tied:
            self.head.weight.normal_(0, c.d_model**-0.5)
        for block in self.decoder:
            assert isinstance(block, Block)
            query, keys_values = block.attention.qkv.weight.tensor_split([c.heads * c.d_kv])
            query.normal_(0, (c.d_model * c.d_kv) ** -0.5)
            keys_values.normal_(0, c.d_model**-0.5)
            block.attention.out.weight.normal_(0, (c.heads * c.d_kv) ** -0.5)
            block.feedforward.wi.weight.normal_(0, c.d_model**-0.5)
            block.feedforward.wo.weight.normal_(0, c.d_ff**-0.5)

    def encode(self, vectors: Tensor, layout: Layout) -> Memory:
        """Source vectors (batch, width, d_model) through the stack → memory, with the source at the right edge.

        So distances between target and source do not depend on padding.
        """
        vectors, layout = right_aligned(vectors, layout)
        memory = Memory(layout, vectors, on_the_right=True)
        places = torch.arange(layout.width, device=vectors.device)
        bias = self.distance_bias(places, places) if self.config.prefix == "full" else self.past_bias(len(places))
        given = Reading(layout, bias[None] if memory.bias is None else bias + memory.bias, memory)
        x = self.dropout(vectors)
        for place, block in enumerate(self.decoder):
            x = block(x, place, replace(given, only_keys=place == self.config.layers - 1))
        return memory

    def bypass(self, vectors: Tensor, layout: Layout) -> Memory:
        """Raises RequestError: there is no encoder to bypass."""
        raise RequestError("route bypass: a decoder-only network has no encoder to go past; use the route encoder")

    def distance_bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (queries,) and (keys,) → relative bias (heads, queries, keys), float32."""
        return self.decoder_positions(keys - queries[:, None])

    def past_bias(self, time: int) -> Tensor:
        """(heads, time, time): relative bias with a causal mask."""
        places = torch.arange(time, device=self.embedding.weight.device)
        return self.distance_bias(places, places).masked_fill(places > places[:, None], MASKED)

    def run_decoder(
        self, tokens: Tensor, memory: Memory, cache: KeyValueCache | None = None, layout: Layout | None = None
    ) -> Tensor:
        """Tokens (memory.batch × beams, time) → states (rows, time, d_model), ready for the head."""
        return self._read_on(tokens, memory, cache)

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32 weights, by teacher forcing.

        Positions are those of `memory.mask`. The softmax covers source and target, so that a row sums to less than 1;
        the rest is attention to the target.
        """
        seen: list[Tensor] = []
        self._read_on(tokens, memory, None, seen)
        return torch.stack(seen)

    def watched(self) -> contextlib.AbstractContextManager[dict[str, list[Tensor]]]:
        """Nothing is kept: attention to the target shares its softmax with that to the source."""
        return contextlib.nullcontext({})

    def _read_on(
        self, tokens: Tensor, memory: Memory, cache: KeyValueCache | None, seen: list[Tensor] | None = None
    ) -> Tensor:
        c, (rows, time) = self.config, tokens.shape
        hypotheses, begin = rows // memory.batch, 0 if cache is None else cache.length
        if cache is None and hypotheses > 1:  # without a cache each hypothesis has its own memory
            each = torch.arange(memory.batch, device=tokens.device)
            memory, hypotheses = memory.select(each.repeat_interleave(hypotheses)), 1
        own = self.past_bias(time) if cache is None else cache.next_bias(hypotheses, time)
        x = self.embed(tokens)
        x = self.dropout(self.place(x, begin) if c.target_positions else x).view(memory.batch, hypotheses * time, -1)
        places = torch.arange(memory.layout.width, device=memory.states.device)
        targets = torch.arange(time, device=places.device) + len(places) + begin
        of_source = self.distance_bias(targets, places).repeat(1, hypotheses, 1)  # the same for all hypotheses
        of_source = of_source[None] if memory.bias is None else of_source + memory.bias
        given = Reading(Layout.whole(*x.shape[:2]), own, memory, of_source, cache, seen)
        for place, block in enumerate(self.decoder):
            x = block(x, place, given)
        if cache is not None:
            cache.advance(hypotheses, time)
        x = self.dropout(self.decoder_norm(x)).view(rows, time, -1)
        return x * c.d_model**-0.5 if c.scaled else x

    def new_cache(self, memory: Memory, beams: int, steps: int) -> KeyValueCache:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        c = self.config
        shape = (memory.batch, c.heads, c.d_kv)
        return KeyValueCache(c.layers, shape, steps, memory.keys_values[0][0], self.past_bias)


def right_aligned(vectors: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Vectors (batch, width, d_model) with padding moved from the right to the left of each example."""
    behind = layout.width - layout.begins - layout.lengths
    if not behind.any():
        return vectors, layout
    index = (np.arange(layout.width) - behind[:, None]) % layout.width
    index += np.arange(len(layout))[:, None] * layout.width
    places = torch.from_numpy(index.flatten()).to(vectors.device, non_blocking=True)
    moved = Layout(layout.lengths, layout.width, layout.begins + behind)
    return vectors.flatten(0, 1)[places].view_as(vectors), moved


# ── from a recipe, and between folder and body ────────────────────────────────────────────────────────────────────────


def make(model: ModelConfig, tokenizer: Tokenizer, features: bool) -> DecoderOnly:
    """A new network for a recipe."""
    shape = DecoderOnlyConfig(
        **t5.shape_options(DecoderOnlyConfig, model, tokenizer),
        layers=model.decoder_layers,
        target_positions=features if model.decoder_positions is None else model.decoder_positions,
    )
    if model.same_size:
        with torch.device("meta"):
            wanted = size(t5.make(model, tokenizer, features))
        shape = sized(shape, wanted)
    return DecoderOnly(shape)


def sized(shape: DecoderOnlyConfig, wanted: int) -> DecoderOnlyConfig:
    """The shape with a number of layers and a `d_ff` that give about `wanted` parameters.

    The number of layers is the nearest one for the given d_ff; then d_ff is adjusted, to a multiple of 16, or of 8, 4,
    2 or 1 if that is too coarse for `NEAR`. From d_model 32 on the result is within 1 %.
    """

    def count(layers: int, d_ff: int) -> int:
        with torch.device("meta"):
            return size(DecoderOnly(replace(shape, layers=layers, d_ff=d_ff)))

    first = count(1, 1)
    layer, unit = count(2, 1) - first, count(1, 2) - first  # parameters of a layer with d_ff 1, and per further d_ff

    def total(layers: int, d_ff: int) -> int:
        return first - layer + layers * (layer + (d_ff - 1) * unit)

    one = total(1, shape.d_ff)
    layers = max(1, 1 + round((wanted - one) / (total(2, shape.d_ff) - one)))
    exact = 1 + (wanted - total(layers, 1)) / (layers * unit)
    for step in STEPS:
        d_ff = max(step, round(exact / step) * step)
        if abs(total(layers, d_ff) - wanted) <= NEAR * wanted:
            break
    return replace(shape, layers=layers, d_ff=d_ff)


read = partial(read_own, DecoderOnly, DecoderOnlyConfig, ("prefix", "activation"))
write = partial(write_own, MODEL_TYPES[0])
