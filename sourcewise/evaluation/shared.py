"""Outputs and source bits of a set, by several processes that take a share of its batches each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.evaluation.source_bits import SourceBits, source_bits
from sourcewise.generation.generate import chosen, generate_share
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.protocol import Network
from sourcewise.runtime.ranks import Ranks

Progress = Callable[[str, int, int], None]  # (name of the work, done, of)


@dataclass(frozen=True, slots=True)
class Found:
    """What a network says of a set, in the order of the set."""

    hypotheses: list[Hypothesis]
    bits: SourceBits


@dataclass(frozen=True, slots=True)
class Part:
    """What it says of a share of the batches: index in the set → hypotheses, and source bits that are 0 elsewhere."""

    hypotheses: dict[int, list[Hypothesis]]
    bits: SourceBits


def found_in(
    network: Network,
    encoded: ExampleSet,
    options: GenerationConfig,
    share: tuple[int, int],
    progress: Progress | None = None,
) -> Part:
    """Outputs and source bits of every n-th batch from the k-th on, for a `share` (k, n).

    Each is that of the whole set, since samples belong to examples and batches are those of one process.
    """

    def report(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress(what, done, of)

    said = generate_share(network, encoded, options, share, report("generating"))
    return Part(said, source_bits(network, encoded, progress=report("source bits"), share=share))


def put_together(parts: Sequence[Part], encoded: ExampleSet, options: GenerationConfig) -> Found:
    """What the parts of all shares give for the set."""
    of = {index: each for part in parts for index, each in part.hypotheses.items()}
    lists = chosen([of[index] for index in range(len(encoded))], encoded, options)
    first = parts[0].bits
    nats, shuffled = sum(part.bits.nats for part in parts), sum(part.bits.shuffled for part in parts)
    return Found([each[0] for each in lists], SourceBits(nats, shuffled, first.tokens, first.understood))  # type: ignore[arg-type]


def found_by_all(
    network: Network,
    encoded: ExampleSet,
    options: GenerationConfig,
    ranks: Ranks,
    progress: Progress | None = None,
) -> Found | None:
    """Outputs and source bits of a set, in the first process; each process does a share of the work.

    All processes have to call it together; what fails on one ends all.
    """
    with ranks.agreed(patient=True):
        part = found_in(network, encoded, options, (ranks.rank, ranks.world), progress if ranks.leads else None)
    parts = ranks.gather(part)
    return put_together(parts, encoded, options) if ranks.leads else None
