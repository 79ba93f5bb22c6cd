"""The ids of words, remembered: most tokenizers split a text at its spaces first, so its ids are those of its words.

Looking up a word is ten times as fast as encoding it, and large sets have few words, each many times. What a word
looks like is not guessed: it counts only if the tokenizer gives the same ids wherever it stands. All other texts are
encoded as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, cast

CHUNK = 10_000  # texts that are encoded together
FEW = 200  # texts for which words are not learned
MOST = 200_000  # words that are remembered
LONGEST = 40  # characters of such a word
NEW = 0.4  # share of new words above which a chunk has no spaces between its words, or is no language
NEIGHBOUR = "a"  # any word: what stands beside a word must not change its ids

# Steps that look at one word, or one character, at a time, once the text is split at its spaces.
SPLITTERS = ("WhitespaceSplit", "BertPreTokenizer")
WITHIN_WORDS = (*SPLITTERS, "Metaspace", "Split", "Digits", "Punctuation")
OF_CHARACTERS = ("Precompiled", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer")
AT_ENDS = ("Strip", "Prepend")
DOUBLED = (r"\A ", " {2,}")  # patterns of spaces that do not stand alone between words
MODELS = ("Unigram", "BPE", "WordLevel", "WordPiece")
CHANCE = ("dropout", "alpha", "nbest_size")  # options of a model that draws


class Words:
    """Encodes texts by remembered words, with the ids of `encode`, the tokenizer's own function for many texts.

    `added` are the ids of added tokens: texts that may have one are encoded as a whole.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]], added: set[int]) -> None:
        self._encode, self._added = encode, added
        self._known: dict[str, tuple[int, ...] | None] = {"": None}  # None: its ids depend on the rest of the text
        self._neighbour = encode([NEIGHBOUR])[0]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens around it."""
        return [ids for start in range(0, len(texts), CHUNK) for ids in self._chunk(texts[start : start + CHUNK])]

    def _chunk(self, texts: Sequence[str]) -> list[list[int]]:
        split = [text.split(" ") for text in texts]
        rows = list(map(self._of_words, split))
        failed = [place for place, ids in enumerate(rows) if ids is None]
        if failed and self._learn(set().union(*(split[place] for place in failed)), NEW * sum(map(len, split))):
            for place in failed:
                rows[place] = self._of_words(split[place])
            failed = [place for place in failed if rows[place] is None]
        for place, ids in zip(failed, self._encode([texts[place] for place in failed]), strict=True):
            rows[place] = ids
        return cast(list[list[int]], rows)

    def _of_words(self, words: Sequence[str]) -> list[int] | None:
        """The ids of a text of these words; None if they do not tell."""
        try:
            return list(chain.from_iterable(map(self._known.__getitem__, words)))  # type: ignore[arg-type]
        except (KeyError, TypeError):  # a word that is not known, or None
            return None

    def _learn(self, words: set[str], most: float) -> bool:
        """Remember words that are not known, unless they are more than `most`; returns whether there are new ones."""
        new = sorted(words - self._known.keys())
        if len(new) > most:
            return False
        new = [word for word in new if len(word) <= LONGEST][: MOST - len(self._known)]
        ends = self._neighbour
        alone = self._encode(new)
        within = self._encode([f"{NEIGHBOUR} {word} {NEIGHBOUR}" for word in new])
        for word, ids, longer in zip(new, alone, within, strict=True):
            same = longer == [*ends, *ids, *ends] and self._added.isdisjoint(ids)
            self._known[word] = tuple(ids) if same else None
        return bool(new)


def words_of(text: str, encode: Callable[[list[str]], list[list[int]]]) -> Words | None:
    """The words of a tokenizer.json, and its function; None if it may not encode a text word by word."""
    tree = json.loads(text)
    steps = _steps(tree.get("pre_tokenizer"), "pretokenizers")
    splits = bool(steps) and _splits(steps[0]) and all(step["type"] in WITHIN_WORDS for step in steps)
    model = tree["model"]
    if not splits or model.get("type") not in MODELS or any(model.get(name) for name in CHANCE):
        return None
    if not all(map(_is_of_characters, _steps(tree.get("normalizer"), "normalizers"))):
        return None
    added = tree.get("added_tokens") or []
    if any(" " in entry["content"] for entry in added):
        return None
    try:
        encode([NEIGHBOUR])
    except Exception:  # the library raises bare Exception, here if there is no unknown token
        return None
    return Words(encode, {entry["id"] for entry in added})


def _steps(step: dict[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    """The single steps of a normalizer or pre-tokenizer."""
    if step is None:
        return []
    return [each for one in step[inside] for each in _steps(one, inside)] if step["type"] == "Sequence" else [step]


def _splits(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer splits at every space, so that a word never shares a piece with another."""
    if step["type"] == "Metaspace":
        return bool(step.get("split", True)) and step.get("prepend_scheme", "always") != "never"
    return step["type"] in SPLITTERS


def _is_of_characters(step: dict[str, Any]) -> bool:
    """Whether a normalizer leaves single spaces between words, and words as they would be alone."""
    if step["type"] == "Replace":
        return step["pattern"].get("Regex") in DOUBLED
    return step["type"] in (*OF_CHARACTERS, *AT_ENDS)
