"""Outputs and source bits of a set, by all processes of a training together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.evaluation.source_bits import SourceBits, source_bits
from sourcewise.generation.generate import generate
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.protocol import Network
from sourcewise.runtime.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Found:
    """What a network says of a set, in the order of the set."""

    hypotheses: list[Hypothesis]
    bits: SourceBits


def found_by_all(network: Network, encoded: ExampleSet, options: GenerationConfig, ranks: Ranks) -> Found:
    """Outputs of a set by a search that draws nothing, and its source bits; each process does a share of the work.

    All processes have to call it together; what fails on one ends all.
    """
    longest_first = np.argsort(encoded.source_lengths, kind="stable")[::-1]
    mine = sorted(longest_first[ranks.rank :: ranks.world].tolist())
    with ranks.agreed():
        said = generate(network, encoded.select(mine), options) if mine else []
        bits = source_bits(network, encoded, share=(ranks.rank, ranks.world))
    of = {place: each for pairs in ranks.gather(list(zip(mine, said, strict=True))) for place, each in pairs}
    for sums in (bits.nats, bits.shuffled):
        ranks.sum(torch.from_numpy(sums))
    return Found([of[place] for place in range(len(encoded))], bits)
