"""The ways in which a word can be cut into pieces, and how likely each is drawn.

`Likely`: subword regularization (Kudo 2018, section 3.3), for unigram models. Of the l best segmentations x of a word,
one is drawn with P(x)^alpha / Σ P(x')^alpha, where P(x) is the product of the probabilities of its pieces.
`Merged`: BPE-dropout (Provilkov et al. 2020, algorithm 1), for models of merged pairs. At each merge every pair is left
out with some probability. Of a word, l such segmentations are drawn once, and then one of them in each epoch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sourcewise.config import SubwordSamplingConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

NORMAL, UNKNOWN, UNUSED = 1, 2, 5  # SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType
SPACES = (" ", "▁", "Ġ")  # a piece that begins with one begins a word
KINDS = {"Unigram": "alpha", "BPE": "dropout"}  # the model of a tokenizer.json → the option that draws from it
NAMES = {"WordLevel": "whole words", "BPE": "merged pairs (BPE)", "Unigram": "pieces with probabilities (unigram)"}
OPTION = "train.subword_sampling"


class Segmentations:
    """The segmentations of each word of a vocabulary.

    `begins` (ids,) says of which ids a word begins, `fixed` (ids,) which always stay: special and added tokens, bytes,
    unknown.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: dict[int, str], fixed: set[int]) -> None:
        """`pieces` are the texts of the ids of the model; ids that are not in it are fixed."""
        self._pieces = pieces
        self.begins, self.fixed = np.ones((2, tokenizer.size), dtype=bool)
        for i, text in pieces.items():
            self.fixed[i] = i in fixed or not text or _is_byte(text)
            self.begins[i] = self.fixed[i] or text.startswith(SPACES)
        self._stay, self._begin = (set(np.flatnonzero(each).tolist()) for each in (self.fixed, self.begins))

    def of(self, word: Sequence[int]) -> tuple[list[list[int]], np.ndarray]:
        """Segmentations of the word that these ids spell, the given one among them, and their (count,) probabilities.

        A word with a fixed id has one segmentation.
        """
        given = list(word)
        if not self._stay.isdisjoint(given):
            return [given], np.ones(1)
        return self._of(given, "".join(self._pieces[i] for i in given))

    def _of(self, given: list[int], text: str) -> tuple[list[list[int]], np.ndarray]:
        raise NotImplementedError

    def _is_one(self, ids: Sequence[int]) -> bool:
        """Whether a segmentation may be read: none with an unknown piece, none with a second beginning of a word.

        The latter would be two words: a space as a piece of its own, then a letter run that begins with a space.
        """
        return self._stay.isdisjoint(ids) and self._begin.isdisjoint(ids[1:])


class Likely(Segmentations):
    """By a unigram model: the `best` likeliest, drawn with their probabilities to the power of `alpha`."""

    def __init__(self, tokenizer: Tokenizer, model: dict[str, Any], added: set[int], alpha: float, best: int) -> None:
        vocabulary, unknown = model["vocab"], model["unk_id"]
        super().__init__(tokenizer, {i: text for i, (text, _) in enumerate(vocabulary)}, added | {unknown})
        self._alpha, self._best = alpha, best
        self._scores = [score for _, score in vocabulary]
        self._processor = _processor(vocabulary, unknown, self.fixed)

    def _of(self, given: list[int], text: str) -> tuple[list[list[int]], np.ndarray]:
        every = self._processor.nbest_encode(text, nbest_size=self._best, out_type=int)
        found = [ids for ids in every if self._is_one(ids)]
        found = found if given in found else [given, *found]
        scores = self._alpha * np.array([sum(self._scores[i] for i in ids) for ids in found])
        shares = np.exp(scores - scores.max())
        return found, shares / shares.sum()


class Merged(Segmentations):
    """By a model of merged pairs: `draws` segmentations, each by merges of which a share is left out."""

    def __init__(
        self, tokenizer: Tokenizer, model: dict[str, Any], added: set[int], dropout: float, draws: int
    ) -> None:
        self._ids: dict[str, int] = model["vocab"]
        unknown = self._ids.get(model.get("unk_token") or "", -1)
        super().__init__(tokenizer, {i: text for text, i in self._ids.items()}, added | {unknown})
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._dropout, self._draws = dropout, draws

    def _of(self, given: list[int], text: str) -> tuple[list[list[int]], np.ndarray]:
        rng = np.random.default_rng(list(text.encode()))  # a word has the same draws wherever it is met
        drawn = Counter({tuple(given): 0})
        for _ in range(self._draws):
            ids = [self._ids.get(piece, -1) for piece in self._merged(list(text), rng)]
            if -1 not in ids and self._is_one(ids):
                drawn[tuple(ids)] += 1
        counts = np.array(list(drawn.values()), dtype=np.float64)
        if not counts.sum():
            return [given], np.ones(1)
        return [list(ids) for ids in drawn], counts / counts.sum()

    def _merged(self, symbols: list[str], rng: np.random.Generator) -> list[str]:
        """Characters, merged in the order of the ranks until every pair that is left was left out."""
        while len(symbols) > 1:
            pairs = list(pairwise(symbols))
            kept = rng.random(len(pairs)) >= self._dropout
            known = [
                (rank, i) for i, pair in enumerate(pairs) if kept[i] and (rank := self._ranks.get(pair)) is not None
            ]
            if not known:
                break
            _, place = min(known)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        return symbols


def segmentations(tokenizer: Tokenizer, config: SubwordSamplingConfig) -> Segmentations:
    """The segmentations of a tokenizer's words, as asked. Raises RequestError for an option of another kind."""
    given = [name for name in KINDS.values() if getattr(config, name)]
    try:
        tree = json.loads(tokenizer.to_json())
    except RequestError:
        problem = "pieces are drawn by a tokenizer.json, which this class of tokenizer has not"
        raise RequestError(f"{OPTION}.{given[0]}: {problem}; leave it out") from None
    model, added = tree["model"], {entry["id"] for entry in tree.get("added_tokens") or ()}
    kind = str(model.get("type"))
    fit = KINDS.get(kind)
    if fit is None or given != [fit] or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        marked = ", marked at their ends" if fit and given == [fit] else ""
        problem = f"the tokenizer has {NAMES.get(kind, kind)}{marked}"
        remedy = f"set {OPTION}.{fit} alone" if fit and not marked else "leave it out"
        raise RequestError(f"{OPTION}.{given[0]}: {problem}; {remedy}")
    if config.alpha:
        return Likely(tokenizer, model, added, config.alpha, config.best)
    return Merged(tokenizer, model, added, config.dropout, config.best)


def _processor(vocabulary: Sequence[tuple[str, float]], unknown: int, fixed: np.ndarray) -> Any:
    """A SentencePieceProcessor with these pieces, which changes nothing in a text."""
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto()
    for i, (text, score) in enumerate(vocabulary):
        kind = UNKNOWN if i == unknown else UNUSED if fixed[i] else NORMAL
        proto.pieces.add(piece=text or f"<empty {i}>", score=score, type=kind)
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    trained.model_type, trained.vocab_size, trained.unk_id = UNIGRAM, len(vocabulary), unknown
    trained.bos_id = trained.eos_id = trained.pad_id = -1
    normal.name = "identity"
    normal.add_dummy_prefix = normal.remove_extra_whitespaces = normal.escape_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def _is_byte(text: str) -> bool:
    """Whether a piece stands for a byte, such as <0x0A>."""
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
