"""Our network: a body of any family, and for features the bridge in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source, length_mask
from sourcewise.model.blocks.memory import PackedMemory
from sourcewise.model.blocks.packing import Packing
from sourcewise.model.habits import Habits
from sourcewise.model.inputs.bridges import Bridge
from sourcewise.model.loss import linear_cross_entropy
from sourcewise.model.parts import PARTS, ParameterInfo, Stacks, belonging
from sourcewise.model.protocol import Route, shift_right


class Shape(Protocol):
    """What is known of every body by its configuration."""

    vocabulary: int
    d_model: int
    dropout: float
    pad_id: int
    eos_id: int
    start_id: int


class Body(Protocol):
    """What a family brings: how vectors become a memory, and tokens and a memory states. An nn.Module.

    Its children's names begin with the part that they are, `embedding` (or `head`), `encoder` or `decoder`; `encoder`
    and `decoder` themselves are lists of blocks.
    """

    @property
    def config(self) -> Shape:
        """Its shape, a frozen dataclass."""

    @property
    def positions(self) -> int | None:
        """Its longest source or target; None: any length."""

    @property
    def joins(self) -> bool:
        """Whether its memories and caches have `join`."""

    @property
    def attends(self) -> bool:
        """Whether its decoder attends to the memory."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Source tokens (batch, time) → vectors (batch, time, d_model)."""

    def encode(self, vectors: Tensor, mask: Tensor) -> Any:
        """Vectors (batch, slots, d_model) and their mask (batch, slots) through the encoder → Memory."""

    def bypass(self, vectors: Tensor, mask: Tensor) -> Any:
        """The same past the encoder: the decoder attends to the vectors themselves."""

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""

    def run_decoder(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → states (rows, time, width), ready for the head."""

    def run_packed(self, tokens: Tensor, memory: PackedMemory, packing: Packing) -> Tensor:
        """States (rows, width) of these places of the tokens, for a body whose `encode` gives such a memory."""

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, slots) float32; None: no attention."""

    @property
    def output_matrix(self) -> Tensor:
        """(vocabulary, width) weights of the projection to the vocabulary."""

    @property
    def output_bias(self) -> Tensor | None:
        """(vocabulary,) added to the logits, where the family has one."""


class Seq2Seq(nn.Module):
    """The protocol over a body; route `encoder`: bridge → encoder → decoder, `bypass`: bridge → decoder."""

    kind = "a network of ours"

    def __init__(self, body: Any, bridge: Bridge | None = None, route: Route = "encoder") -> None:
        super().__init__()
        self.body: Body = body
        self.bridge = bridge
        self.route: Route = route
        self.start_id, self.eos_id, self.pad_id = body.config.start_id, body.config.eos_id, body.config.pad_id
        self.habits = Habits((self.eos_id,))
        self.vocabulary: int = body.config.vocabulary
        self.spoken = self.vocabulary
        self.positions: int | None = body.positions
        self.joins: bool = body.joins

    @property
    def dims(self) -> int:
        """Width of the features it reads; 0: it reads text."""
        return 0 if self.bridge is None else self.bridge.dims

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.output_matrix.device

    @property
    def attends(self) -> bool:
        """Whether its decoder attends to the memory; one that reads a single vector does not."""
        return self.body.attends

    @property
    def stacks(self) -> Stacks:
        """The blocks of the encoder, where there is one, and of the decoder."""
        children = dict(self.body.named_children())  # type: ignore[attr-defined]
        return {part: list(children[part]) for part in ("encoder", "decoder") if part in children}

    def parts(self) -> Iterator[ParameterInfo]:
        """Every parameter with the part that it belongs to."""
        children = [(name.replace("head", PARTS[0]), m) for name, m in self.body.named_children()]  # type: ignore[attr-defined]
        owners = [(part, m) for name, m in children for part in PARTS if name.startswith(part)]
        if self.bridge is not None:
            owners += [("features", self.bridge.encoder), ("bridge", self.bridge)]
        return belonging(self, owners, self.stacks)

    def encode(self, source: Source) -> Any:
        """Read sources → Memory; it serves any number of later calls."""
        vectors, mask = self.embed(source.to(self.device))
        return self.body.bypass(vectors, mask) if self.bypassed(source) else self.body.encode(vectors, mask)

    def bypassed(self, source: Source) -> bool:
        """Whether this source goes past the encoder."""
        return self.route == "bypass" and source.features is not None

    def embed(self, source: Source) -> tuple[Tensor, Tensor]:
        """Source → vectors (batch, slots, d_model) and mask: token embeddings, or prompt and bridge slots."""
        if source.features is None:
            assert source.tokens is not None
            return self.body.embed(source.tokens), source.token_mask
        if self.bridge is None:
            raise ValueError("this network reads text: it has no bridge for features")
        assert source.frames is not None
        slots, counts = self.bridge(source.features, source.frames)
        mask = length_mask(counts, slots.shape[1])
        if source.tokens is None:
            return slots, mask
        prompt, prompt_mask = _left_padded(source.tokens, source.token_mask)
        vectors = self.body.embed(prompt)
        return torch.cat((vectors, slots), dim=1), torch.cat((prompt_mask, mask), dim=1)

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        return self.body.new_cache(memory, beams, steps)

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        return self.logits(self.body.run_decoder(tokens, memory, cache))

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states (..., width) → logits (..., vocabulary)."""
        logits = states @ self.body.output_matrix.T
        bias = self.body.output_bias
        return logits if bias is None else logits + bias

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, slots) float32; None: no attention."""
        return self.body.cross_attention(tokens, memory)

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """Summed nats of the batch's target tokens, and how many; the logits exist a chunk at a time."""
        labels = batch.labels.to(self.device)
        tokens = shift_right(labels, self.start_id, self.pad_id)
        states, matrix, flat = self.projection(tokens, self.encode(batch.source), labels)
        nats = linear_cross_entropy(states, matrix, flat, label_smoothing)
        return nats, int((labels != IGNORED).sum())

    def projection(
        self, tokens: Tensor, memory: Any, labels: Tensor, *, padded: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and labels (memory.batch, time) → states (rows, width), matrix (vocabulary, width) and labels (rows,).

        states @ matrix.T is the logits: what a loss takes that never holds them all. Rows are the tokens one after
        another; unless they shall be `padded`, padding may be left out.
        """
        if isinstance(memory, PackedMemory):
            places = torch.arange(1, labels.shape[1] + 1)
            packing = Packing(length_mask(((labels != IGNORED) * places).amax(1).clamp(min=1), labels.shape[1]))
            states = self.body.run_packed(tokens, memory, packing)
            if padded:
                states, labels = packing.unpack(states).flatten(0, 1), labels.flatten()
            else:
                labels = packing.gather(labels)
        else:
            states, labels = self.body.run_decoder(tokens, memory).flatten(0, 1), labels.flatten()
        matrix = self.body.output_matrix
        if self.body.output_bias is not None:  # as one more column of the matrix, so that the loss knows no bias
            matrix = torch.cat((matrix, self.body.output_bias[:, None]), dim=1)
            states = torch.cat((states, torch.ones_like(states[:, :1])), dim=-1)
        return states, matrix, labels


def _left_padded(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move a right-padded prompt to the right edge, so that it abuts the slots whatever its neighbours' lengths."""
    width = tokens.shape[1]
    shift = width - mask.sum(1, keepdim=True)
    index = (torch.arange(width, device=tokens.device) - shift) % width
    return tokens.gather(1, index), mask.gather(1, index)
