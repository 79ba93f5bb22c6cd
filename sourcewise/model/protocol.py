"""The Network protocol: all other packages use a network only by this interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.model.finite import not_finite
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.loss import Emphasis
from sourcewise.model.parts import ParameterInfo, Stacks

Route = Literal["encoder", "bypass"]
TOKENS_AT_A_TIME = 1024  # target tokens whose logits `token_nats` has in memory at once


class Memory(Protocol):
    """The encoder output that the decoder attends to, computed once per source for all steps, beams and calls."""

    @property
    def mask(self) -> Tensor:
        """(batch, positions) bool, false at padding."""

    @property
    def batch(self) -> int:
        """Number of sources."""

    def select(self, rows: Tensor) -> Memory:
        """The memory of these sources (int64 indices), in this order."""

    def join(self, other: Any) -> Memory:
        """The memory of these sources and those of another one; only if the network `joins`."""


class Cache(Protocol):
    """Keys and values of the decoder's self-attention (or its state) in generation."""

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses, in place and in this order: int64 (sources, hypotheses), one row per source."""

    def join(self, other: Any) -> None:
        """Add another cache of the same length; only if the network `joins`."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Results of a pass over a batch, for the terms that are added to the cross-entropy."""

    batch: Batch
    memory: Any
    tokens: Tensor  # (batch, time), decoder inputs
    labels: Tensor  # (batch, time), on the network's device
    states: Tensor  # (batch × time, width) of the decoder
    matrix: Tensor | None  # (vocabulary, width): states @ matrix.T are the logits; None: the states are


@dataclass(frozen=True, slots=True)
class Aims:
    """Options of the loss: decoder inputs, added terms, smoothing and emphasis of the cross-entropy."""

    smoothing: float = 0.0
    emphasis: Emphasis | None = None
    inputs: Callable[[Any, Any, Tensor], Tensor] | None = None  # network, memory, labels → decoder inputs
    terms: Mapping[str, Callable[[Any, Pass], Tensor]] = field(default_factory=dict)  # network, pass → a sum of nats


PLAIN = Aims()


@dataclass(frozen=True, slots=True)
class LossParts:
    """The loss of a batch, in nats summed over its target tokens, on the network's device."""

    minimised: Tensor  # the cross-entropy with smoothing and emphasis
    nats: Tensor  # the plain cross-entropy, without a gradient if `minimised` differs
    tokens: int  # target tokens
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Network(Protocol):
    """An encoder–decoder network."""

    kind: str  # its class in words
    start_id: int
    eos_id: int  # the end of text in training; `defaults` has all ends of generation
    pad_id: int
    defaults: GenerationDefaults  # forced, suppressed and end tokens of generation
    vocabulary: int  # number of embedded ids
    spoken: int  # number of ids in outputs
    positions: int | None  # maximum length of source and target; None: any length
    route: Route  # of features: `encoder`, or `bypass` around it
    joins: bool  # whether memories and caches of several batches can be joined

    @property
    def dims(self) -> int:
        """Width of the features; 0: sources are text."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    def attends(self) -> bool:
        """Whether the decoder attends to the memory, rather than reading a single vector."""

    @property
    def stacks(self) -> Stacks:
        """The blocks of `encoder` and `decoder`, if the network has them."""

    def parts(self) -> Iterator[ParameterInfo]:
        """Every parameter with its part and layer."""

    def encode(self, source: Source) -> Any:
        """Encode sources → Memory."""

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary) of the next tokens.

        Without a cache the tokens are the complete prefix (as in teacher forcing); with a cache they continue it.
        """

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time), from the start token on → (layers, batch, heads, time, width) float32.

        The attention weights of each target position over the memory positions; a row sums to 1, or to less if the
        rest is attention to the target (decoder-only). None: no attention.
        """

    def self_attention(self, source: Source, tokens: Tensor) -> dict[str, Tensor]:
        """Weights of self-attention of `encoder` and `decoder`: (layers, batch, heads, queries, keys) float32.

        A stack that has none is left out. Keys of the decoder are the `tokens` (batch, time), from the start token on.
        """

    def __call__(self, batch: Batch, aims: Aims = ...) -> LossParts:
        """The loss of a batch: the only call in training, so that hooks see the complete computation of a step."""


def shift_right(labels: Tensor, start_id: int, pad_id: int) -> Tensor:
    """Labels (batch, time) → decoder inputs: the start token, then all labels but the last."""
    tokens = labels.roll(1, dims=1)
    tokens[:, 0] = start_id
    return tokens.masked_fill(tokens == IGNORED, pad_id)


def token_nats(network: Network, memory: Any, labels: Tensor) -> Tensor:
    """−ln p(label) of every target token by teacher forcing: (batch, time) float32, 0 where labels are padding.

    Logits are computed in chunks of rows: those of a complete batch over a vocabulary of 250,000 take gigabytes. Raises
    NotFinite if they are NaN.
    """
    tokens = shift_right(labels, network.start_id, network.pad_id)
    out = []
    for rows in torch.arange(len(labels), device=labels.device).split(max(1, TOKENS_AT_A_TIME // labels.shape[1])):
        part = memory if len(rows) == len(labels) else memory.select(rows)
        logits = network.decode(tokens[rows], part).flatten(0, 1).float()
        nats = F.cross_entropy(logits, labels[rows].flatten(), ignore_index=IGNORED, reduction="none")
        if bool(nats.isnan().any()):
            again = partial(network.decode, tokens[rows], part)
            raise not_finite(network, "the logits of the targets", again)
        out.append(nats.view(len(rows), -1))
    return torch.cat(out)
