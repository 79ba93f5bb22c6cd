"""Beam search with words that have to come: beams are shared among hypotheses with few and with many of their tokens.

As dynamic beam allocation (Post & Vilar 2018): the best continuations compete with those that begin or go on with a
word that is missing, each only against others with as many of the wanted tokens. The end of text waits for all words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sourcewise.generation.words import Ids

Candidate = tuple[float, int, int]  # total ln p, extended beam, token


def forced_candidates(
    log_p: Tensor,
    scores: Tensor,
    running: Tensor,
    words: Sequence[Sequence[Ids]],
    ends: Sequence[int],
    count: int,
    last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` continuations of each source to go on with, in order: total ln p, extended beam, token.

    `log_p` is (sources, beams, vocabulary), `scores` (sources, beams) and `running` (sources, beams, tokens so far).
    `words` are the spellings of each word. The `last` token is one of those that get farthest with them.
    """
    rows = []
    for own, before, tokens in zip(log_p, scores, running.tolist(), strict=True):
        rows.append(_of_source(own, before, tokens, words, ends, count, last))
    found = [torch.tensor([[c[part] for c in row] for row in rows], device=log_p.device) for part in range(3)]
    return found[0].float(), found[1], found[2]


def _of_source(
    log_p: Tensor,
    before: Tensor,
    tokens: list[list[int]],
    words: Sequence[Sequence[Ids]],
    ends: Sequence[int],
    count: int,
    last: bool,
) -> list[Candidate]:
    size, never = log_p.shape[1], float(torch.finfo(torch.float32).min) / 4
    total = log_p + before[:, None]
    whole = sum(min(map(len, word)) for word in words)
    for beam, ids in enumerate(tokens):
        if not last and met(ids, words) < whole:
            total[beam, list(ends)] = -torch.inf
    best = total.flatten().topk(min(count, total.numel())).indices.tolist()
    live = [beam for beam, score in enumerate(before.tolist()) if score > -1e8]
    wanted = [beam * size + token for beam in live for token in continuing(tokens[beam], words)]
    banks: dict[int, list[Candidate]] = {}
    for place in dict.fromkeys((*best, *wanted)):
        beam, token = divmod(place, size)
        score = float(total[beam, token])
        if score > never:
            banks.setdefault(met([*tokens[beam], token], words), []).append((score, beam, token))
    farthest = sorted(banks, reverse=True)[: 1 if last else None]
    ordered = list(_in_turn([sorted(banks[key], reverse=True) for key in farthest]))[:count]
    return ordered + [(-1e9, 0, 0)] * (count - len(ordered))


def _in_turn(banks: Sequence[Sequence[Candidate]]) -> Iterator[Candidate]:
    """The first of each bank, then the second of each, and so on."""
    for place in range(max(map(len, banks), default=0)):
        yield from (bank[place] for bank in banks if place < len(bank))


def met(ids: Sequence[int], words: Sequence[Sequence[Ids]]) -> int:
    """How many of the wanted tokens are there: all of a word that is contained, and the beginning of one at the end."""
    return sum(max(_met(ids, spelling, min(map(len, word))) for spelling in word) for word in words)


def _met(ids: Sequence[int], spelling: Ids, whole: int) -> int:
    """The same for one spelling, at most `whole`, so that all spellings of a word count alike."""
    size = len(spelling)
    if any(tuple(ids[i : i + size]) == spelling for i in range(len(ids) - size + 1)):
        return whole
    return min(_begun(ids, spelling), whole - 1)


def _begun(ids: Sequence[int], spelling: Ids) -> int:
    """The length of the longest beginning of a spelling in which the ids end."""
    return next((n for n in range(len(spelling) - 1, 0, -1) if tuple(ids[-n:]) == spelling[:n]), 0)


def continuing(ids: Sequence[int], words: Sequence[Sequence[Ids]]) -> list[int]:
    """The tokens that begin, or go on with, a word that is missing."""
    missing = [word for word in words if met(ids, [word]) < min(map(len, word))]
    return list(dict.fromkeys(spelling[_begun(ids, spelling)] for word in missing for spelling in word))
