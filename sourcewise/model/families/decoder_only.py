"""A decoder-only stack, to be measured beside encoder–decoders: it reads source and target as one sequence.

```
source tokens ─ embedding ─┐
                           ├─ blocks ─ memory (every block's keys and values of the source)
features ─ bridge ─────────┘    │ the same blocks
start, target tokens ─ embedding ─ blocks (self-attention over source and past) ─ norm ─ head
```

The start token separates the two, and the loss is that of the target alone (Liu et al. 2018, "T-D"). Prefix `causal`: a
token of the source sees those before it; `full`: all of them, the prefix LM (Raffel et al. 2020, section 3.2). Reading
the source first and the target after it is the same computation as both at once, but the source is read only once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import ModelConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.blocks.attention import MASKED, RelativePositions, SelfAttention, attend, kept, merge_heads
from sourcewise.model.blocks.layers import Embedding, FeedForward, RMSNorm, SinusoidalPositions, dropout
from sourcewise.model.blocks.memory import KeyValueCache, padding_bias
from sourcewise.model.blocks.residual import ResidualBlock
from sourcewise.model.families import t5
from sourcewise.model.parts import size
from sourcewise.model.weights.interchange import check, take
from sourcewise.model.weights.weight_files import Weights

MODEL_TYPES = ("sourcewise-decoder",)  # of config.json
IDS = {"pad_id": "pad_token_id", "eos_id": "eos_token_id", "start_id": "decoder_start_token_id"}  # in config.json
STEPS = (16, 8, 4, 2, 1)  # d_ff is a multiple of the first of these that comes near enough
NEAR = 0.002  # share of the parameters by which two networks of the same size differ at most, where d_ff can do it

Part = tuple[Tensor, Tensor, Tensor]  # keys and values (batch, heads, slots, d_kv), and the bias of their slots


@dataclass(frozen=True)
class DecoderOnlyConfig:
    """The shape of a decoder-only stack; its blocks are those of T5's encoder."""

    vocabulary: int
    d_model: int = 256
    d_kv: int = 64
    d_ff: int = 1024
    heads: int = 4
    layers: int = 8
    prefix: Literal["causal", "full"] = "causal"  # what a token of the source sees of it
    activation: str = "relu"
    tied: bool = True  # one matrix embeds and predicts
    scaled: bool = True  # output × d_model^-0.5 before the head
    dropout: float = 0.1
    attention_dropout: float = 0.1
    relative_buckets: int = 32
    relative_distance: int = 128
    target_positions: bool = False  # sinusoids added to the vectors of the target
    eps: float = 1e-6
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0


@dataclass
class PrefixMemory:
    """Every block's keys and values of the source, which stands at the right edge: its padding is on the left."""

    mask: Tensor  # (batch, slots) bool
    keys_values: list[tuple[Tensor, Tensor]]  # per block (batch, heads, slots, d_kv) twice
    bias: Tensor | None = field(init=False)  # (batch, 1, 1, slots); None where nothing is padded

    def __post_init__(self) -> None:
        self.bias = padding_bias(self.mask)

    @property
    def batch(self) -> int:
        """How many sources."""
        return len(self.mask)

    def select(self, rows: Tensor) -> PrefixMemory:
        """The memory of these sources, cut to their longest."""
        mask = self.mask[rows]
        first = int(mask.any(0).nonzero().min()) if mask.numel() else 0
        return PrefixMemory(mask[:, first:], [(k[rows, :, first:], v[rows, :, first:]) for k, v in self.keys_values])

    def join(self, other: PrefixMemory) -> PrefixMemory:
        """These sources and those of another memory."""
        width = max(self.mask.shape[1], other.mask.shape[1])

        def both(mine: Tensor, theirs: Tensor, below: int) -> Tensor:
            """Side by side, the axis of slots, which has `below` axes after it, grown on the left."""
            grown = [F.pad(t, (0, 0) * below + (width - t.shape[-1 - below], 0)) for t in (mine, theirs)]
            return torch.cat(grown)

        pairs = zip(self.keys_values, other.keys_values, strict=True)
        keys_values = [(both(k, more_k, 1), both(v, more_v, 1)) for (k, v), (more_k, more_v) in pairs]
        return PrefixMemory(both(self.mask, other.mask, 0), keys_values)

    def repeated(self, times: int) -> PrefixMemory:
        """Each source `times` times, one after another."""
        rows = torch.arange(self.batch, device=self.mask.device).repeat_interleave(times)
        return PrefixMemory(self.mask[rows], [(k[rows], v[rows]) for k, v in self.keys_values])


class Block(ResidualBlock):
    """Self-attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, c: DecoderOnlyConfig) -> None:
        super().__init__(c.dropout)
        self.attention_norm = RMSNorm(c.d_model, c.eps)
        self.attention = SelfAttention(c.d_model, c.heads, c.d_kv, c.attention_dropout)
        self.feedforward_norm = RMSNorm(c.d_model, c.eps)
        self.feedforward = FeedForward(c.d_model, c.d_ff, c.activation, c.dropout)

    def project(self, x: Tensor, sources: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """x (rows, time, d_model), to go on with, and its q, k, v, each (sources, heads, hypotheses × time, d_kv)."""
        projected, x = self.enter(x, self.attention_norm, self.attention.qkv)
        return x, self.attention.split(projected, sources)

    def go_on(self, x: Tensor, read: Tensor) -> Tensor:
        """x (rows, time, d_model) and what its queries read → the block's output, the shape of x."""
        return self.feed(self.leave(x, merge_heads(read, x), self.attention.out, self.attention_norm))


class DecoderOnly(nn.Module):
    """Embedding, one stack of blocks and the projection to the vocabulary."""

    positions: int | None = None  # they are relative
    joins = attends = True
    output_bias: Tensor | None = None

    def __init__(self, config: DecoderOnlyConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = Embedding(c.vocabulary, c.d_model)
        self.decoder_positions = RelativePositions(
            c.relative_buckets, c.relative_distance, c.heads, bidirectional=c.prefix == "full"
        )
        self.place = SinusoidalPositions(c.d_model)
        self.decoder = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.decoder_norm = RMSNorm(c.d_model, c.eps)
        if not c.tied:
            self.head = nn.Linear(c.d_model, c.vocabulary, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As T5's encoder begins (model/transformer.py)."""
        c = self.config
        self.embedding.weight.normal_(0, 1.0)
        self.decoder_positions.table.weight.normal_(0, c.d_model**-0.5)
        if not c.tied:
            self.head.weight.normal_(0, c.d_model**-0.5)
        for block in self.blocks:
            query, keys_values = block.attention.qkv.weight.tensor_split([c.heads * c.d_kv])
            query.normal_(0, (c.d_model * c.d_kv) ** -0.5)
            keys_values.normal_(0, c.d_model**-0.5)
            block.attention.out.weight.normal_(0, (c.heads * c.d_kv) ** -0.5)
            block.feedforward.wi.weight.normal_(0, c.d_model**-0.5)
            block.feedforward.wo.weight.normal_(0, c.d_ff**-0.5)

    @property
    def blocks(self) -> list[Block]:
        """The stack."""
        return [block for block in self.decoder if isinstance(block, Block)]

    @property
    def output_matrix(self) -> Tensor:
        """(vocabulary, d_model) weights of the projection to the vocabulary."""
        return self.embedding.weight if self.config.tied else self.head.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, time) → vectors (batch, time, d_model)."""
        vectors: Tensor = self.embedding(tokens)
        return vectors

    def encode(self, vectors: Tensor, mask: Tensor) -> PrefixMemory:
        """Source vectors (batch, slots, d_model) through the stack → memory, the source at the right edge.

        So the distance from the target to a slot does not depend on the padding, nor does anything else.
        """
        c = self.config
        vectors, mask = right_aligned(vectors, mask)
        x = dropout(vectors, c.dropout, self.training)
        slots = torch.arange(x.shape[1], device=x.device)
        bias = self.distance_bias(slots, slots) if c.prefix == "full" else self.past_bias(len(slots))
        padding = padding_bias(mask)
        bias = bias[None] if padding is None else bias + padding
        keys_values: list[tuple[Tensor, Tensor]] = []
        for block in self.blocks:
            x, (query, key, value) = block.project(x, len(x))
            keys_values.append((kept(key), kept(value)))
            if len(keys_values) < c.layers:  # nobody reads what the last block makes of the source
                x = block.go_on(x, attend(query, key, value, bias, c.attention_dropout, self.training))
        return PrefixMemory(mask, keys_values)

    def bypass(self, vectors: Tensor, mask: Tensor) -> PrefixMemory:
        """Raises RequestError: there is no encoder to go past."""
        raise RequestError("route bypass: a decoder-only network has no encoder to go past; use the route encoder")

    def distance_bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (queries,) and (keys,) → bias of their distances (heads, queries, keys), float32."""
        table = self.decoder_positions
        return table.table(table.bucket(keys - queries[:, None])).float().permute(2, 0, 1)

    def past_bias(self, time: int) -> Tensor:
        """(heads, time, time): distance bias, the future barred."""
        places = torch.arange(time, device=self.embedding.weight.device)
        return self.distance_bias(places, places).masked_fill(places > places[:, None], MASKED)

    def run_decoder(self, tokens: Tensor, memory: PrefixMemory, cache: KeyValueCache | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → states (rows, time, d_model), ready for the head."""
        return self._read_on(tokens, memory, cache)

    def cross_attention(self, tokens: Tensor, memory: PrefixMemory) -> Tensor:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, slots) float32 weights, by teacher forcing.

        Slots are those of `memory.mask`. One softmax is over source and target: a row sums to less than 1, and what is
        missing fell on the target.
        """
        seen: list[Tensor] = []
        self._read_on(tokens, memory, None, seen)
        return torch.stack(seen)

    def _read_on(
        self, tokens: Tensor, memory: PrefixMemory, cache: KeyValueCache | None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """`run_decoder`; each block's attention to the source is added to `seen`."""
        c = self.config
        hypotheses, time = len(tokens) // memory.batch, tokens.shape[1]
        begin = 0 if cache is None else cache.length
        if cache is None and hypotheses > 1:  # no slots to share: each row has its own past
            memory, hypotheses = memory.repeated(hypotheses), 1
        own_bias = self.past_bias(time) if cache is None else cache.next_bias(hypotheses, time)
        source_bias = self._source_bias(memory, begin, time, hypotheses)
        x = self.embed(tokens)
        x = dropout(self.place(x, begin) if c.target_positions else x, c.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            x, (query, key, value) = block.project(x, memory.batch)
            if cache is None:
                key, value = kept(key), kept(value)
            else:
                key, value = cache.extend(layer, key, value, own_bias.shape[-1])
            source, own = (*memory.keys_values[layer], source_bias), (key, value, own_bias)
            x = block.go_on(x, attend_to_both(query, source, own, c.attention_dropout, self.training, seen))
        if cache is not None:
            cache.advance(hypotheses, time)
        x = dropout(self.decoder_norm(x), c.dropout, self.training)
        return x * c.d_model**-0.5 if c.scaled else x

    def _source_bias(self, memory: PrefixMemory, begin: int, time: int, hypotheses: int) -> Tensor:
        """Bias (batch or 1, heads, hypotheses × time, slots) of the source for target positions from `begin` on."""
        slots = torch.arange(memory.mask.shape[1], device=memory.mask.device)
        targets = torch.arange(time, device=slots.device) + len(slots) + begin
        bias = self.distance_bias(targets, slots).repeat(1, hypotheses, 1)
        return bias[None] if memory.bias is None else bias + memory.bias

    def new_cache(self, memory: PrefixMemory, beams: int, steps: int) -> KeyValueCache:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        c = self.config
        shape = (memory.batch, c.heads, c.d_kv)
        return KeyValueCache(c.layers, shape, steps, memory.keys_values[0][0], self.past_bias)


def attend_to_both(
    query: Tensor, source: Part, own: Part, p: float, training: bool, seen: list[Tensor] | None = None
) -> Tensor:
    """`attend` to a source and to its target so far under one softmax, without moving their keys together.

    The weights (batch, heads, queries, slots of the source) in fp32 are added to `seen`.
    """
    scores = [(query.to(keys.dtype) @ keys.transpose(-1, -2)).float() + bias for keys, _, bias in (source, own)]
    weights = torch.softmax(torch.cat(scores, dim=-1), dim=-1)
    slots = source[0].shape[2]
    if seen is not None:
        seen.append(weights[..., :slots])
    weights = dropout(weights.to(own[1].dtype), p, training)
    read = weights[..., :slots].to(source[1].dtype) @ source[1] + weights[..., slots:] @ own[1]
    return read.to(query.dtype)


def right_aligned(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (batch, slots, d_model) and mask, each row's padding behind its last real slot moved before its first."""
    slots = torch.arange(mask.shape[1], device=mask.device)
    behind = len(slots) - 1 - (mask * slots).amax(1, keepdim=True)
    if not bool(behind.any()):
        return vectors, mask
    index = (slots - behind) % len(slots)
    rows = torch.arange(len(mask), device=mask.device)[:, None] * len(slots)
    return vectors.flatten(0, 1)[(index + rows).flatten()].view_as(vectors), mask.gather(1, index)


# ── from a recipe, and between folder and body ────────────────────────────────────────────────────────────────────────


def make(model: ModelConfig, tokenizer: Tokenizer, features: bool) -> DecoderOnly:
    """A fresh network as a recipe wants it."""
    shape = DecoderOnlyConfig(
        **t5.shape_options(model, tokenizer),
        layers=model.decoder_layers,
        prefix=model.prefix,
        target_positions=features if model.decoder_positions is None else model.decoder_positions,
    )
    if model.same_size:
        with torch.device("meta"):
            wanted = size(t5.make(model, tokenizer, features))
        shape = sized(shape, wanted)
    return DecoderOnly(shape)


def sized(shape: DecoderOnlyConfig, wanted: int) -> DecoderOnlyConfig:
    """The shape with as many layers, and then a `d_ff`, as give it about `wanted` parameters.

    The layers are those that come nearest with the d_ff that is given; then d_ff makes up for the rest, a multiple of
    16, or of 8, 4, 2 or 1 where that is too coarse for `NEAR`. From d_model 32 on it is within 1 %.
    """

    def count(layers: int, d_ff: int) -> int:
        with torch.device("meta"):
            return size(DecoderOnly(replace(shape, layers=layers, d_ff=d_ff)))

    first = count(1, 1)
    layer, unit = count(2, 1) - first, count(1, 2) - first  # a layer of d_ff 1, and one more of d_ff in a layer

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


def read(config: dict[str, Any], weights: Weights) -> DecoderOnly:
    """A network from its configuration and weights. Raises RequestError that names what is wrong."""
    where, given = f"{weights.folder}/config.json", {f.name: IDS.get(f.name, f.name) for f in fields(DecoderOnlyConfig)}
    for key in given.values():
        if key not in config:
            raise RequestError(f"{where}: the key {key!r} of a {MODEL_TYPES[0]} configuration is missing")
    for key in ("prefix", "activation"):
        known = get_args(ModelConfig.model_fields[key].annotation)
        if config[key] not in known:
            raise RequestError(f"{where}: {key} {config[key]!r} is not one of {', '.join(known)}")
    shape = DecoderOnlyConfig(**{name: config[key] for name, key in given.items()})
    with torch.device("meta"):  # nothing of the stated size is made before the weights are known to have it
        expected = DecoderOnly(shape).state_dict()
    check(expected.items(), weights)
    body = DecoderOnly(shape)
    take(body.state_dict().items(), weights)
    return body


def write(body: DecoderOnly) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration, and fp32 weights on the CPU under our own names."""
    shape = {IDS.get(name, name): value for name, value in asdict(body.config).items()}
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in body.state_dict().items()}
    return {"architectures": ["DecoderOnly"], "model_type": MODEL_TYPES[0], **shape}, weights
