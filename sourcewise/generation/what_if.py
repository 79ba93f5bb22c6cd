"""What changes where a part of the source is taken away: a word of a text, or a stretch of frames.

Attention says what was read. This says what it was worth: how much less likely each token of the output is without the
part, and what the model says then. `tracing.py` adds it to a trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source, pad
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.generate import reader, search
from sourcewise.generation.trace import Part, Without
from sourcewise.model.protocol import Memory, Network, token_nats

MOST = 48  # parts of a source; of more words several are taken together
STRETCHES, LEAST = 16, 4  # most parts of a feature matrix, and least frames of one: a frame alone is seldom missed
LONE = "▁"  # a space that is a token of its own


@torch.inference_mode()
def without_each(
    network: Network, encoded: ExampleSet, index: int, ids: list[int], options: GenerationConfig
) -> list[Without]:
    """For each part of `encoded[index]`: what becomes of the output `ids`, and what is said then, without that part."""
    parts = parts_of(encoded, index)
    whole = _log2(network, network.encode(encoded.source([index])), ids)[0]
    found: list[Without] = []
    for some in _batches(parts, encoded, index, options):
        memory = network.encode(_changed(encoded, index, some))
        lost = (whole - _log2(network, memory, ids)).tolist()
        outputs = [encoded.tokenizer.decode(said) for said in _searched(network, memory, encoded, index, options)]
        found += [Without(*each) for each in zip(some, outputs, lost, strict=True)]
    return found


def parts_of(encoded: ExampleSet, index: int) -> list[Part]:
    """The words of a text, or its tokens where it is one word; of features stretches of equally many frames.

    Ends of text and codes of languages are left alone, and so is a prompt beside features.
    """
    if encoded.dataset.dims:
        frames = int(encoded.source_lengths[index])
        edges = np.linspace(0, frames, min(STRETCHES, max(1, frames // LEAST)) + 1).round().astype(int).tolist()
        return [Part(start, stop) for start, stop in pairwise(edges)]
    assert encoded.sources is not None
    ids, tokenizer = [int(i) for i in encoded.sources[index]], encoded.tokenizer
    pieces = tokenizer.pieces(ids)
    tokens = [i for i, token in enumerate(ids) if not _is_special(tokenizer, token)]
    begins = [i for n, i in enumerate(tokens) if n == 0 or i > tokens[n - 1] + 1 or _begins_word(pieces[i])]
    begins = begins if len(begins) > 1 else tokens
    words = [[i for i in tokens if i >= begin and (end is None or i < end)] for begin, end in _pairs(begins)]
    together = -(-len(words) // MOST)
    joined = [list(chain(*words[i : i + together])) for i in range(0, len(words), together or 1)]
    found = [Part(some[0], some[-1] + 1, _text(tokenizer, [ids[i] for i in some])) for some in joined if some]
    return [part for part in found if part.stop - part.start < len(ids)]  # something is left to read


def _pairs(begins: list[int]) -> Iterator[tuple[int, int | None]]:
    return zip(begins, [*begins[1:], None], strict=True)


def _is_special(tokenizer: Tokenizer, token: int) -> bool:
    """Whether an id stands for no text: an end, a code of a language."""
    if token in tokenizer.around:
        return True
    speaks = tokenizer.languages is not None  # of other examples in other languages
    return speaks and not tokenizer.decode([token]) and not tokenizer.name(token).startswith(LONE)


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids).strip() or "".join(tokenizer.pieces(ids)).strip()


def _begins_word(piece: str) -> bool:
    return piece[:1].isspace() or piece.startswith(LONE)


def _batches(
    parts: Sequence[Part], encoded: ExampleSet, index: int, options: GenerationConfig
) -> Iterator[Sequence[Part]]:
    """The parts in batches of at most `options.batch_tokens` positions × beams; alone where samples are drawn."""
    beams = 1 if options.sample else options.beams
    size = max(1, options.batch_tokens // (beams * max(1, int(encoded.source_lengths[index]))))
    size = 1 if options.sample else size  # samples belong to indices: each is drawn as the traced output was
    for i in range(0, len(parts), size):
        yield parts[i : i + size]


def _changed(encoded: ExampleSet, index: int, parts: Sequence[Part]) -> Source:
    """A batch of the source without each part: its tokens gone, its frames replaced by the mean frame of the whole."""
    source = encoded.source([index])
    if source.features is None:
        assert encoded.sources is not None
        ids = [int(i) for i in encoded.sources[index]]
        rows = [ids[: part.start] + ids[part.stop :] for part in parts]
        return Source(*pad(rows, encoded.tokenizer.pad_id))
    still = source.features.mean(1)[0]
    batch = source.select(torch.zeros(len(parts), dtype=torch.int64))
    assert batch.features is not None
    for row, part in zip(batch.features, parts, strict=True):
        row[part.start : part.stop] = still
    return batch


def _log2(network: Network, memory: Memory, ids: list[int]) -> Tensor:
    """log2 p of each target token, by teacher forcing, with each source of a memory: (batch, time)."""
    rows = torch.tensor([ids], device=network.device).expand(memory.batch, -1)
    return -token_nats(network, memory, rows).double() / math.log(2)


def _searched(
    network: Network, memory: Memory, encoded: ExampleSet, index: int, options: GenerationConfig
) -> list[list[int]]:
    """The ids that the search says for each source of a memory, by the rules of the example at `index`."""
    count = memory.batch
    places = [index * count + n for n in range(count)]
    found = search(network, [(places, memory)], options, reader(encoded).spread(count))
    return [found[place][0].said for place in places]
