"""Scores of outputs that were found: token probabilities, source bits without a reference, and alignments.

Outputs are fed to the decoder once more, as in training: with their own source, and with others of similar length.
What is as likely with other sources was not read off its source. The search itself stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Budget, pad, sorted_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.generation.others import Others, Pool, emptied, pools
from sourcewise.generation.outputs import Output, Outputs, Token
from sourcewise.generation.sampling import Hypothesis
from sourcewise.generation.slots import slots_of
from sourcewise.generation.trace import Slot
from sourcewise.model.protocol import Network, shift_right, token_nats

if TYPE_CHECKING:
    from sourcewise.generation.generate import Progress
    from sourcewise.generation.model import Model

BATCH_TOKENS = 8192  # positions of sources and outputs in a batch
NOWHERE = "no other source is at hand"


@dataclass(slots=True)
class _Scored:
    """What one output got, per token."""

    nats: np.ndarray  # (time,) −ln p with the own source
    without: np.ndarray  # (time,) mean −ln p with other sources; NaN: none
    rival: float  # −ln p of the output, without what was given, with the other source that explains it best
    attention: np.ndarray | None  # (time, slots) averaged over layers and heads


def scored(
    model: Model,
    encoded: ExampleSet,
    found: Sequence[Sequence[Hypothesis]],
    progress: Progress | None = None,
    *,
    within: bool = True,
) -> list[Outputs]:
    """The outputs of every source with the scores of their tokens.

    Source bits are measured against others of the set, or with `within` off against the run's own sources alone, so
    that they do not depend on what else is in the set. Raises NotFinite.
    """
    chooser = _Chooser(model, encoded, within)
    out: dict[int, Outputs] = {}
    outputs = np.array([sum(len(each.said) for each in several) for several in found], dtype=np.int64)
    budget = Budget(max(1, BATCH_TOKENS // max(1, max(map(len, found), default=1))))
    for batch in sorted_batches(np.asarray(encoded.source_lengths), outputs, budget):
        indices = [int(i) for i in batch]
        for index, parts in _batch(model.network, encoded, indices, found, chooser):
            out[index] = _outputs(model, encoded, index, found[index], parts, chooser.told[index])
        if progress is not None:
            progress(len(out), len(found))
    return [out[i] for i in range(len(found))]


class _Chooser:
    """Chooses other sources for each one: of the first set that has some which differ, else an emptied source."""

    def __init__(self, model: Model, encoded: ExampleSet, within: bool) -> None:
        self.model, self.encoded, self.within = model, encoded, within
        self.told: dict[int, str] = {}
        self._pools: dict[str, tuple[list[Pool], Iterator[Pool]]] = {}

    def __call__(self, index: int) -> tuple[Pool, list[int]] | Others | None:
        """A set with indices in it, or an emptied source; None if there is none."""
        for pool in self._known(self.encoded.dataset.task.name):
            rows = pool.nearest(self.encoded, index)
            if rows:
                self.told[index] = pool.told(len(rows))
                return pool, rows
        empty = emptied(self.encoded, index)
        self.told[index] = NOWHERE if empty is None else empty.told
        return empty

    def _known(self, task: str) -> Iterator[Pool]:
        """The sets of other sources, opened when they are needed, and only once."""
        if task not in self._pools:
            text = self.encoded.dataset[0].source
            self._pools[task] = ([], pools(self.model, self.encoded, text, within=self.within))
        opened, more = self._pools[task]
        yield from opened
        for pool in more:
            opened.append(pool)
            yield pool


@torch.inference_mode()
def _batch(
    network: Network,
    encoded: ExampleSet,
    indices: list[int],
    found: Sequence[Sequence[Hypothesis]],
    chooser: _Chooser,
) -> Iterator[tuple[int, list[_Scored]]]:
    """Yields each source of a batch with the scores of its outputs."""
    rows = [(place, each.said) for place, index in enumerate(indices) for each in found[index]]
    given = np.array([each.given for index in indices for each in found[index]])
    labels = pad([ids for _, ids in rows], IGNORED)[0].to(network.device)
    places = torch.tensor([place for place, _ in rows], device=network.device)
    memory = network.encode(encoded.source(indices))
    own = memory.select(places)
    nats = token_nats(network, own, labels).double().cpu().numpy()
    chosen = [chooser(index) for index in indices]
    without, rival = _with_others(network, labels, places, chosen, given)
    weights = network.cross_attention(shift_right(labels, network.start_id, network.pad_id), own)
    attention = None if weights is None else weights.mean((0, 2)).cpu().numpy()
    masks = memory.mask.cpu().numpy()
    parts: dict[int, list[_Scored]] = {}
    for row, (place, ids) in enumerate(rows):
        read = None if attention is None else attention[row, : len(ids)][:, masks[place]]
        size = len(ids)
        parts.setdefault(place, []).append(_Scored(nats[row, :size], without[row, :size], float(rival[row]), read))
    for place, index in enumerate(indices):
        yield index, parts[place]


def _with_others(
    network: Network,
    labels: Tensor,
    places: Tensor,
    chosen: Sequence[tuple[Pool, list[int]] | Others | None],
    given: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """−ln p of labels with other sources, `chosen` for each place; NaN where there are none.

    The mean over these sources of each token (rows, time), and the sum over an output with the source that explains it
    best (rows,), in which the first `given` tokens do not count.
    """
    total, counts = np.zeros(labels.shape), np.zeros(len(chosen))
    best, counted = np.full(len(labels), np.inf), np.arange(labels.shape[1]) >= given[:, None]
    for memory, of_place in _memories(network, chosen):
        for k in range(max(map(len, of_place.values()))):
            there = [place for place, rows in of_place.items() if k < len(rows)]
            mine = torch.isin(places, torch.tensor(there, device=places.device)).nonzero().squeeze(1)
            rows = torch.tensor([of_place[int(place)][k] for place in places[mine]], device=places.device)
            nats = token_nats(network, memory.select(rows), labels[mine]).double().cpu().numpy()
            at = mine.cpu().numpy()
            total[at] += nats
            best[at] = np.minimum(best[at], (nats * counted[at]).sum(1))
            counts[there] += 1
    counts[counts == 0] = math.nan
    best[np.isinf(best)] = math.nan
    return total / counts[places.cpu().numpy()][:, None], best


def _memories(
    network: Network, chosen: Sequence[tuple[Pool, list[int]] | Others | None]
) -> Iterator[tuple[Any, dict[int, list[int]]]]:
    """Yields memories of other sources, and for each place its rows in them."""
    by_pool: dict[int, tuple[Pool, dict[int, list[int]]]] = {}
    for place, each in enumerate(chosen):
        if isinstance(each, Others):
            yield each.read_by(network), {place: [0]}
        elif each is not None:
            by_pool.setdefault(id(each[0]), (each[0], {}))[1][place] = each[1]
    for pool, of_place in by_pool.values():
        wanted = sorted({row for rows in of_place.values() for row in rows})
        number = {row: i for i, row in enumerate(wanted)}
        memory = network.encode(pool.encoded.source(wanted))
        yield memory, {place: [number[row] for row in rows] for place, rows in of_place.items()}


def _outputs(
    model: Model, encoded: ExampleSet, index: int, found: Sequence[Hypothesis], parts: list[_Scored], told: str
) -> Outputs:
    """The outputs of one source."""
    first = parts[0].attention
    slots, _ = slots_of(model.network, encoded, index, None if first is None else first.shape[-1])
    content = _content(model, encoded, index, slots)
    outputs = tuple(_output(model, each, part, content) for each, part in zip(found, parts, strict=True))
    return Outputs(outputs, tuple(slots), told)


def _output(model: Model, found: Hypothesis, part: _Scored, content: np.ndarray) -> Output:
    ids, bits = found.said, (part.without - part.nats) / math.log(2)
    pieces = model.tokenizer.pieces(ids)
    aligned: list[int | None] = [None] * len(ids)
    if part.attention is not None and content.any():
        aligned = [int(slot) for slot in np.where(content, part.attention, -1.0).argmax(1)]
    tokens = tuple(
        Token(token, piece, -float(nats), float(gained), slot, t < found.given)
        for t, (token, piece, nats, gained, slot) in enumerate(zip(ids, pieces, part.nats, bits, aligned, strict=True))
    )
    said = len(ids) - found.given
    least = (part.rival - float(part.nats[found.given :].sum())) / math.log(2) / said if said else math.nan
    text = model.tokenizer.decode(ids)
    return Output(text, found.score, found.finished, tuple(ids), tokens, found.utility, least)


def _content(model: Model, encoded: ExampleSet, index: int, slots: Sequence[Slot]) -> np.ndarray:
    """Which slots an alignment may name: (slots,) bool. Special tokens, on which attention rests, are left out."""
    kept = np.array([slot.kind != "other" for slot in slots], dtype=bool)
    if encoded.sources is not None:
        special = np.isin(np.asarray(encoded.sources[index])[: len(slots)], list(model.tokenizer.around))
        kept[: len(special)] &= ~special
    return kept
