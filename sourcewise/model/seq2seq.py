"""Our encoder–decoder network: a Transformer, and for features the bridge in front of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source, length_mask
from sourcewise.model.bridges import Bridge
from sourcewise.model.loss import linear_cross_entropy
from sourcewise.model.memory import KeyValueCache, TransformerMemory
from sourcewise.model.protocol import shift_right
from sourcewise.model.transformer import Transformer


class Seq2Seq(nn.Module):
    """The protocol over a Transformer; route `encoder`: bridge → encoder → decoder, `bypass`: bridge → decoder."""

    barred_ids: tuple[int, ...] = ()
    positions: int | None = None  # they are relative
    joins = True

    def __init__(
        self, transformer: Transformer, bridge: Bridge | None = None, route: Literal["encoder", "bypass"] = "encoder"
    ) -> None:
        super().__init__()
        self.transformer, self.bridge, self.route = transformer, bridge, route
        config = transformer.config
        self.start_id, self.eos_id, self.pad_id = config.start_id, config.eos_id, config.pad_id
        self.vocabulary = config.vocabulary

    @property
    def dims(self) -> int:
        """Width of the features it reads; 0: it reads text."""
        return 0 if self.bridge is None else self.bridge.dims

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.transformer.embedding.weight.device

    def encode(self, source: Source) -> TransformerMemory:
        """Read sources; the memory serves any number of later calls."""
        vectors, mask = self.embed(source.to(self.device))
        states = vectors if self.bypassed(source) else self.transformer.run_encoder(vectors, mask)
        return self.transformer.memory(states, mask)

    def bypassed(self, source: Source) -> bool:
        """Whether this source goes past the encoder."""
        return self.route == "bypass" and source.features is not None

    def embed(self, source: Source) -> tuple[Tensor, Tensor]:
        """Source → vectors (batch, slots, d_model) and mask: token embeddings, or prompt and bridge slots."""
        if source.features is None:
            assert source.tokens is not None
            return self.transformer.embedding(source.tokens), source.token_mask
        if self.bridge is None:
            raise ValueError("this network reads text: it has no bridge for features")
        assert source.frames is not None
        slots, counts = self.bridge(source.features, source.frames)
        mask = length_mask(counts, slots.shape[1])
        if source.tokens is None:
            return slots, mask
        prompt, prompt_mask = _left_padded(source.tokens, source.token_mask)
        vectors = self.transformer.embedding(prompt)
        return torch.cat((vectors, slots), dim=1), torch.cat((prompt_mask, mask), dim=1)

    def new_cache(self, memory: TransformerMemory, beams: int, steps: int) -> KeyValueCache:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        return self.transformer.new_cache(memory, beams, steps)

    def decode(self, tokens: Tensor, memory: TransformerMemory, cache: KeyValueCache | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        states = self.transformer.run_decoder(tokens, memory, cache)
        return states @ self.transformer.output_matrix.T

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """Summed nats of the batch's target tokens, and how many; the logits exist a chunk at a time."""
        return self.loss_from(self.encode(batch.source), batch, label_smoothing)

    def loss_from(self, memory: TransformerMemory, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """`loss` for a memory that is already there."""
        labels = batch.labels.to(self.device)
        states = self.transformer.run_decoder(shift_right(labels, self.start_id, self.pad_id), memory)
        nats = linear_cross_entropy(
            states.flatten(0, 1), self.transformer.output_matrix, labels.flatten(), label_smoothing
        )
        return nats, int((labels != IGNORED).sum())


def _left_padded(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move a right-padded prompt to the right edge, so that it abuts the slots whatever its neighbours' lengths."""
    width = tokens.shape[1]
    shift = width - mask.sum(1, keepdim=True)
    index = (torch.arange(width, device=tokens.device) - shift) % width
    return tokens.gather(1, index), mask.gather(1, index)
