"""Generation for a complete set: sources are sorted by length, batched and searched; outputs keep the set's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Budget, sorted_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.generation.beam import beam_search
from sourcewise.generation.engine.search import Engine
from sourcewise.generation.flow import Feed
from sourcewise.generation.risk import LOCAL, least_risk, least_risk_by_comet
from sourcewise.generation.rules import Allowed, ReadSource
from sourcewise.generation.sampling import Hypothesis, greedy_or_sample, samples
from sourcewise.model.protocol import Memory, Network
from sourcewise.runtime.processes import map_in_processes, worker_count

Progress = Callable[[int, int], None]  # (done, of)
TURNS = 3  # least number of batches per worker
LEAST_TOKENS = 2048  # least size of a batch, in memory positions × beams
BATCHES = 16  # batches per report of a worker


@dataclass(slots=True)
class Memories:
    """The memories of a set of sources in batches: encoded once, for any number of generations."""

    batches: list[tuple[list[int], Memory]]  # indices in the set, and memory
    read: ReadSource | None = None

    def __len__(self) -> int:
        return sum(len(indices) for indices, _ in self.batches)


def batch_indices(encoded: ExampleSet, options: GenerationConfig, workers: int = 1) -> list[list[int]]:
    """Indices of a set in batches, longest sources first, of at most `options.batch_tokens` positions × beams.

    Batches are smaller where `workers` would otherwise wait for each other.
    """
    beams = 1 if options.sample else options.beams
    lengths = np.asarray(encoded.source_lengths)
    tokens = options.batch_tokens // beams
    if workers > 1:
        tokens = min(tokens, max(LEAST_TOKENS // beams, int(lengths.sum()) // (TURNS * workers)))
    batches = sorted_batches(lengths, np.zeros_like(lengths), Budget(max(1, tokens)))
    return [batch.tolist() for batch in batches]


@torch.inference_mode()
def encode_batches(network: Network, encoded: ExampleSet, options: GenerationConfig) -> Memories:
    """Encodes a set."""
    batches = [(rows, network.encode(encoded.source(rows))) for rows in batch_indices(encoded, options)]
    return Memories(batches, reader(encoded))


def reader(encoded: ExampleSet) -> ReadSource:
    """What rules of a search know of the examples of a set."""
    tokens, begins = encoded.sources, encoded.begins
    return ReadSource(
        None if tokens is None else tokens.__getitem__,
        None if begins is None else begins.__getitem__,
        encoded.tokenizer,
    )


def generate(
    network: Network,
    sources: ExampleSet | Memories,
    options: GenerationConfig,
    progress: Progress | None = None,
    engine: Engine | None = None,
    first: int = 0,
) -> list[Hypothesis]:
    """The best hypothesis of every source; see `generate_lists`."""
    return [found[0] for found in generate_lists(network, sources, options, progress, engine, first)]


def generate_lists(
    network: Network,
    sources: ExampleSet | Memories,
    options: GenerationConfig,
    progress: Progress | None = None,
    engine: Engine | None = None,
    first: int = 0,
    count: int = 1,
    allowed: Allowed | None = None,
) -> list[list[Hypothesis]]:
    """The `count` best hypotheses of every source, in the order of the set; the work is divided among all cores.

    An engine, if given, searches sources that are not encoded yet, with the options it supports; the others are told
    in a line. `first` is the index of the first source in a larger set, since samples belong to indices. `allowed`
    says which tokens may follow.
    """
    if engine is not None and isinstance(sources, ExampleSet):
        why = engine.why_not(options, sources, count, allowed is not None)
        if not why:
            return [[found] for found in engine.search(sources, options, progress)]
        engine.tell(why)
    known = sources.read if isinstance(sources, Memories) else reader(sources)
    if allowed is not None:
        known = replace(known or ReadSource(), allowed=allowed)
    drawn = candidates(options, count)
    workers = worker_count(network.device)
    batches, read = _batches(sources, options, workers, drawn), None if known is None else known.moved(first)
    found = _shared(network, sources, options, batches, read, progress, first, count, workers)
    lists = chosen([found[first + i] for i in range(len(found))], sources, options)
    return [each[:count] for each in lists]


def generate_share(
    network: Network,
    sources: ExampleSet,
    options: GenerationConfig,
    share: tuple[int, int],
    progress: Progress | None = None,
) -> dict[int, list[Hypothesis]]:
    """Index in the set → its hypotheses, best first, of every n-th batch from the k-th on, for a `share` (k, n).

    With all shares these are those of `generate_lists`; `chosen` orders them where that takes the whole set.
    """
    workers = worker_count(network.device)
    batches = _batches(sources, options, workers, candidates(options, 1))[share[0] :: share[1]]
    return _shared(network, sources, options, batches, reader(sources), progress, 0, 1, workers) if batches else {}


def chosen(
    lists: list[list[Hypothesis]], sources: ExampleSet | Memories, options: GenerationConfig
) -> list[list[Hypothesis]]:
    """The hypotheses of a whole set, best first: as they were found, or by COMET, which reads all sources."""
    return least_risk_by_comet(lists, sources) if options.mbr == "comet" else lists


def _shared(
    network: Network,
    sources: ExampleSet | Memories,
    options: GenerationConfig,
    batches: list[list[int]],
    read: ReadSource | None,
    progress: Progress | None,
    first: int,
    count: int,
    workers: int,
) -> dict[int, list[Hypothesis]]:
    """Index in the set → its hypotheses, searched by `workers` processes that share the batches."""
    parts = max(1, min(len(batches), workers * -(-len(batches) // (workers * BATCHES))))

    def feed(part: int) -> Iterator[tuple[list[int], Memory]]:
        for i in range(part, len(batches), parts):
            if isinstance(sources, Memories):
                indices, memory = sources.batches[i]
            else:
                indices, memory = batches[i], network.encode(sources.source(batches[i]))
            yield [first + index for index in indices], memory

    @torch.inference_mode()
    def run(part: int) -> dict[int, list[Hypothesis]]:
        return search(network, feed(part), options, read, count)

    found: dict[int, list[Hypothesis]] = {}
    for part in map_in_processes(run, parts, workers):
        found.update(part)
        if progress is not None:
            progress(len(found), len(sources))
    return found


def candidates(options: GenerationConfig, count: int) -> int:
    """How many hypotheses of a source are searched so that `count` can be given. Raises RequestError if it cannot."""
    most = None if options.sample else options.beams
    if most is not None and count > most:
        raise RequestError(f"n_best {count} is above beams {most}; set beams {count} or more, or sample")
    if options.mbr == "none":
        return count
    return most or max(count, options.mbr_candidates)


def _batches(sources: ExampleSet | Memories, options: GenerationConfig, workers: int, drawn: int) -> list[list[int]]:
    if isinstance(sources, Memories):
        return [indices for indices, _ in sources.batches]
    wide = options.model_copy(update={"sample": False, "beams": drawn}) if options.sample else options
    return batch_indices(sources, wide, workers)


def search(
    network: Network, feed: Feed, options: GenerationConfig, read: ReadSource | None = None, count: int = 1
) -> dict[int, list[Hypothesis]]:
    """Index in the set → `count` hypotheses, best first: drawn, greedy, or the best of the beams, or by `mbr`.

    `read` knows the examples, for rules that use them. For COMET, which needs the sources, all candidates are returned.
    """
    drawn = candidates(options, count)
    if options.sample and drawn > 1:
        found = samples(network, feed, options, read, drawn)
    elif options.sample or options.beams == 1:
        found = {index: [each] for index, each in greedy_or_sample(network, feed, options, read).items()}
    else:
        found = beam_search(network, feed, options, read=read)
    if options.mbr in LOCAL:
        found = {index: least_risk(each, options.mbr, read) for index, each in found.items()}
    return found if options.mbr == "comet" else {index: each[:count] for index, each in found.items()}
