"""Outputs for a whole set: sorted by length, batched, searched, put back in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Budget, sorted_batches
from sourcewise.data.encoding import Encoded
from sourcewise.generation.beam import beam_search
from sourcewise.generation.sampling import Hypothesis, greedy_or_sample
from sourcewise.lanes import Lanes
from sourcewise.model.protocol import Memory, Network

Progress = Callable[[int, int], None]  # (done, of)


@dataclass(slots=True)
class Memories:
    """The memories of a set of sources, batch by batch: encode once, generate as often as you like."""

    batches: list[tuple[list[int], Memory]]  # positions in the set, and their memory

    def __len__(self) -> int:
        return sum(len(indices) for indices, _ in self.batches)


def batch_indices(encoded: Encoded, options: GenerationConfig) -> list[list[int]]:
    """Positions of a set in batches, longest sources first, within `options.batch_tokens` slots × beams."""
    beams = 1 if options.sample else options.beams
    lengths = np.asarray(encoded.source_lengths)
    budget = Budget(max(1, options.batch_tokens // beams))
    return [batch.tolist() for batch in sorted_batches(lengths, np.zeros_like(lengths), budget)]


@torch.inference_mode()
def encode_batches(network: Network, encoded: Encoded, options: GenerationConfig) -> Memories:
    """Memories of a set."""
    batches = batch_indices(encoded, options)
    return Memories([(indices, network.encode(encoded.source(indices))) for indices in batches])


def generate(
    network: Network, sources: Encoded | Memories, options: GenerationConfig, progress: Progress | None = None
) -> list[Hypothesis]:
    """The best hypothesis of every source, in the order of the set; each lane searches a batch at a time."""

    @torch.inference_mode()
    def run(batch: tuple[list[int], Memory | None]) -> dict[int, Hypothesis]:
        indices, memory = batch
        if memory is None:
            assert isinstance(sources, Encoded)
            memory = network.encode(sources.source(indices))
        return dict(zip(indices, search(network, memory, options, indices), strict=True))

    batches: list[Any] = (
        sources.batches if isinstance(sources, Memories) else [(b, None) for b in batch_indices(sources, options)]
    )
    found: dict[int, Hypothesis] = {}
    lanes = Lanes(network.device if len(batches) > 1 else None)
    try:
        for part in lanes.map(run, batches):
            found.update(part)
            if progress is not None:
                progress(len(found), len(sources))
    finally:
        lanes.close()
    return [found[i] for i in range(len(found))]


def search(network: Network, memory: Memory, options: GenerationConfig, indices: list[int]) -> list[Hypothesis]:
    """One hypothesis a source of this memory: sampled, greedy, or the best beam."""
    if options.sample or options.beams == 1:
        return greedy_or_sample(network, memory, options, indices)
    return [beams[0] for beams in beam_search(network, memory, options)]
