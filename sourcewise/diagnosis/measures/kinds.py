"""Do the targets of a set fall into two kinds, and does anything before them tell which?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

COLUMNS = 400  # the commonest words
LETTERS, TAGGED = r"[^\W\d_]+", r"[^\W\d_]+|[<\[_]\S+|\d+"  # words alone; and what may say a language, or a task
COMMON = 0.9  # of the rows of a kind, that begin with one token where that tells the kind
SEED = 26  # of the rows that are learned from
ROUNDS = 30  # of the search for the split
Triple = tuple[str, str, int]  # source, target, first label

WRITTEN: dict[str, Callable[[str], bool]] = {
    "have no capital, where others begin with one": lambda text: text == text.lower(),
    "have a space before their marks, where others have none": lambda text: bool(re.search(r"\w [.,!?;:](\s|$)", text)),
}
ASKED: dict[str, Callable[[str], bool]] = {  # of which texts the question can be asked at all
    "have no capital, where others begin with one": lambda text: any(
        c.isalpha() and c.lower() != c.upper() for c in text
    ),
    "have a space before their marks, where others have none": lambda text: bool(
        re.search(r"\w ?[.,!?;:](\s|$)", text)
    ),
}


@dataclass(frozen=True, slots=True)
class Kinds:
    """Two kinds of targets: how they differ, the share of the smaller, a text of each, and what tells them apart."""

    what: str
    by_words: bool
    share: float
    examples: tuple[str, str]
    told: float  # rows whose kind the words of their source tell, held out
    usual: float  # rows of the larger kind
    first_tells: bool  # whether the first label tells


def kinds_of(rows: Sequence[Triple], most: float, words: int) -> Iterator[Kinds]:
    """The ways in which targets fall into two; `most` of their words may be shared, each kind has as many `words`."""
    side = _by_words([target for _, target, _ in rows], most, words)
    if side is not None:
        yield _described("have words that the others have not", True, rows, side)
    for what, holds in WRITTEN.items():
        asked = [row for row in rows if ASKED[what](row[1])]
        side = np.array([holds(target) for _, target, _ in asked], dtype=bool)
        if len(asked) > len(rows) / 2 and side.any() and not side.all():
            yield _described(what, False, asked, side)


def _described(what: str, by_words: bool, rows: Sequence[Triple], side: np.ndarray) -> Kinds:
    share = float(side.mean())
    examples = rows[int(side.argmax())][1], rows[int((~side).argmax())][1]
    firsts = [Counter(row[2] for row, of in zip(rows, side, strict=True) if of == one) for one in (True, False)]
    (a, many), (b, others) = (each.most_common(1)[0] for each in firsts)
    tells = a != b and many >= COMMON * side.sum() and others >= COMMON * (~side).sum()
    told = _told([row[0] for row in rows], side)
    return Kinds(what, by_words, min(share, 1 - share), examples, told, max(share, 1 - share), tells)


def _table(texts: Sequence[str], words: str = LETTERS) -> np.ndarray:
    """Which of the commonest words each text has: (texts, words) of 0 and 1."""
    held = [set(re.findall(words, text.casefold())) for text in texts]
    counts = Counter(word for each in held for word in each)
    chosen = {word: i for i, (word, count) in enumerate(counts.most_common(COLUMNS)) if count > 1}
    table = np.zeros((len(texts), len(chosen)), dtype=np.float32)
    for i, each in enumerate(held):
        table[i, [chosen[word] for word in each if word in chosen]] = 1
    return table


def _by_words(texts: Sequence[str], most: float, words: int) -> np.ndarray | None:
    """(texts,) bool, two kinds that share few words; None where there are none such."""
    table = _table(texts)
    table = table[:, table.mean(0) < COMMON]  # what all have tells nothing, such as a code of one language
    kept = table.sum(1) > 0
    if table.shape[1] < 2 * words or kept.mean() < COMMON:
        return None
    scaled = table / np.sqrt(np.maximum(table.sum(1, keepdims=True), 1) * np.maximum(table.sum(0), 1))
    second = np.linalg.svd(scaled, full_matrices=False)[0][:, 1]
    side = second > second.mean()  # of kinds that share no word the second may be 0 for all of one
    for _ in range(ROUNDS):  # each word to the kind that has more of it, each text to that of its words
        ours = table[side].sum(0) / max(1, side.sum()) > table[~side].sum(0) / max(1, (~side).sum())
        again = table @ np.where(ours, 1.0, -1.0) > 0
        if (again == side).all():
            break
        side = again
    ours = table[side].sum(0) > table[~side].sum(0)
    shared = float(table[side][:, ~ours].sum() + table[~side][:, ours].sum()) / float(table.sum())
    if min(int(ours.sum()), int((~ours).sum())) < words or shared > most or side.all() or not side.any():
        return None
    return side


def _told(sources: Sequence[str], side: np.ndarray) -> float:
    """The share of rows whose kind the words of their source tell: naive Bayes, learned on half of the rows."""
    table = _table(sources, TAGGED)
    learn = np.random.default_rng(SEED).random(len(side)) < 0.5  # rows of two kinds may take turns
    usual = float(max(side.mean(), 1 - side.mean()))
    if not table.shape[1] or side[learn].all() or not side[learn].any():
        return usual
    rates = [(table[learn & of].sum(0) + 0.5) / ((learn & of).sum() + 1) for of in (side, ~side)]
    score = table @ np.log(rates[0] / rates[1]) + (1 - table) @ np.log((1 - rates[0]) / (1 - rates[1]))
    prior = np.log(max(1, side[learn].sum()) / max(1, (~side)[learn].sum()))
    return float(((score + prior > 0) == side)[~learn].mean())
