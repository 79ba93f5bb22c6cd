"""The searches over one memory, results in its order."""

from __future__ import annotations

from typing import Any

from sourcewise.config import GenerationConfig
from sourcewise.generation import beam, sampling
from sourcewise.generation.rules import ReadSource
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.protocol import Memory


def greedy_or_sample(
    network: Any, memory: Memory, options: GenerationConfig, indices: list[int], read: ReadSource | None = None
) -> list[Hypothesis]:
    found = sampling.greedy_or_sample(network, [(indices, memory)], options, read)
    return [found[i] for i in indices]


def beam_search(
    network: Any, memory: Memory, options: GenerationConfig, read: ReadSource | None = None
) -> list[list[Hypothesis]]:
    found = beam.beam_search(network, [(list(range(memory.batch)), memory)], options, read=read)
    return [found[i] for i in range(memory.batch)]
