"""The one protocol: everything above `model/` knows a network only by this."""

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
from sourcewise.model.habits import Habits
from sourcewise.model.loss import Emphasis
from sourcewise.model.parts import ParameterInfo, Stacks

Route = Literal["encoder", "bypass"]
TOKENS_AT_A_TIME = 1024  # target tokens whose logits `token_nats` holds at once


class Memory(Protocol):
    """What the decoder attends to, computed once a source and reused by every step, beam and call."""

    @property
    def mask(self) -> Tensor:
        """(batch, slots) bool, true where a slot is real."""

    @property
    def batch(self) -> int:
        """How many sources."""

    def select(self, rows: Tensor) -> Memory:
        """The memory of these sources (int64 indices), in this order."""

    def join(self, other: Any) -> Memory:
        """These sources and those of another memory; only where the network `joins`."""


class Cache(Protocol):
    """The decoder's own keys and values (or state) while generating."""

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses, in this order, in place: int64 (sources, hypotheses), a row those of one source."""

    def join(self, other: Any) -> None:
        """Take in another cache of the same length; only where the network `joins`."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass over a batch made, for the terms that are added to its cross-entropy."""

    batch: Batch
    memory: Any
    tokens: Tensor  # (batch, time) that the decoder read
    labels: Tensor  # (batch, time), on the network's device
    states: Tensor  # (batch × time, width) of the decoder
    matrix: Tensor  # (vocabulary, width): states @ matrix.T is the logits


@dataclass(frozen=True, slots=True)
class Aims:
    """What is minimised besides, or otherwise than, the cross-entropy of the labels shifted once."""

    smoothing: float = 0.0
    emphasis: Emphasis | None = None
    inputs: Callable[[Any, Any, Tensor], Tensor] | None = None  # network, memory, labels → what the decoder reads
    terms: Mapping[str, Callable[[Any, Pass], Tensor]] = field(default_factory=dict)  # network, pass → a sum of nats


PLAIN = Aims()


@dataclass(frozen=True, slots=True)
class LossParts:
    """The loss of a batch, in nats summed over its target tokens, on the network's device."""

    minimised: Tensor  # the cross-entropy, smoothed and emphasised
    nats: Tensor  # the cross-entropy alone, without a gradient where it is smoothed or emphasised
    tokens: int  # target tokens
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Network(Protocol):
    """An encoder–decoder network."""

    kind: str  # what it is, in words
    start_id: int
    eos_id: int  # the end of a text that is learned; `habits` has all that are obeyed
    pad_id: int
    habits: Habits  # how outputs begin and end, and what they never hold
    vocabulary: int  # ids it embeds
    spoken: int  # ids it may say
    positions: int | None  # its longest source or target; None: any length
    route: Route  # of features: `encoder`, or `bypass` past it
    joins: bool  # whether sources of several batches may be put together: memory and cache have `join`

    @property
    def dims(self) -> int:
        """Width of the features it reads; 0: it reads text."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def attends(self) -> bool:
        """Whether its decoder attends to the memory; one that reads a single vector does not."""

    @property
    def stacks(self) -> Stacks:
        """The blocks of `encoder` and `decoder`, as far as it has them."""

    def parts(self) -> Iterator[ParameterInfo]:
        """Every parameter with the part, and the layer, that it belongs to."""

    def encode(self, source: Source) -> Any:
        """Read sources → Memory."""

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary) of the next tokens.

        Without a cache the tokens are the whole prefix (teacher forcing is "many"); with one they continue it.
        """

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time), from the start token on → (layers, batch, heads, time, slots) float32.

        The weights with which each position read each slot of the memory; a row of slots sums to 1, or to less
        where the rest fell on the target (decoder-only). None: no attention.
        """

    def __call__(self, batch: Batch, aims: Aims = ...) -> LossParts:
        """The loss of a batch; training's only door, so that hooks see all that a step computes."""


def shift_right(labels: Tensor, start_id: int, pad_id: int) -> Tensor:
    """Labels (batch, time) → decoder inputs: the start token, then the labels but the last."""
    tokens = labels.roll(1, dims=1)
    tokens[:, 0] = start_id
    return tokens.masked_fill(tokens == IGNORED, pad_id)


def token_nats(network: Network, memory: Any, labels: Tensor) -> Tensor:
    """−ln p(label) of every target token by teacher forcing: (batch, time) float32, 0 where labels are padding.

    Logits exist for some rows at a time: those of a whole batch over a vocabulary of 250,000 take gigabytes. Raises
    NotFinite where they are NaN.
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
