"""The ways in which a word can be cut into pieces, and how likely each is by the tokenizer's unigram model.

Subword regularization (Kudo 2018, section 3.3): of the l best segmentations x of a word, one is drawn with
P(x)^alpha / Σ P(x')^alpha, where P(x) is the product of the probabilities of its pieces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

NORMAL, UNKNOWN, UNUSED = 1, 2, 5  # SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType
SPACES = (" ", "▁")  # a piece that begins with one begins a word


class Segmentations:
    """The `best` segmentations of each word of a vocabulary.

    `begins` (ids,) says of which ids a word begins, `fixed` (ids,) which always stay: special and added tokens, bytes,
    unknown. Raises RequestError for a tokenizer without probabilities of pieces.
    """

    def __init__(self, tokenizer: Tokenizer, best: int) -> None:
        model, added = _model(tokenizer)
        pieces = [text for text, _ in model["vocab"]]
        unknown = model["unk_id"]
        self.best = best
        self.begins, self.fixed = np.ones((2, tokenizer.size), dtype=bool)  # ids behind the vocabulary were added to it
        for i, text in enumerate(pieces):
            self.fixed[i] = i == unknown or i in added or not text or (model.get("byte_fallback") and _is_byte(text))
            self.begins[i] = self.fixed[i] or text.startswith(SPACES)
        self._pieces, self._scores = pieces, [score for _, score in model["vocab"]]
        self._stay, self._begin = (set(np.flatnonzero(each).tolist()) for each in (self.fixed, self.begins))
        self._processor = _processor(model["vocab"], unknown, self.fixed)

    def of(self, word: Sequence[int], alpha: float) -> tuple[list[list[int]], np.ndarray]:
        """Segmentations of the word that these ids spell, the given one among them, and their (count,) probabilities.

        A word with a fixed id has one segmentation.
        """
        given = list(word)
        if not self._stay.isdisjoint(given):
            return [given], np.ones(1)
        text = "".join(self._pieces[i] for i in given)
        found = [ids for ids in self._processor.nbest_encode(text, nbest_size=self.best, out_type=int) if self._is(ids)]
        found = found if given in found else [given, *found]
        scores = alpha * np.array([sum(self._scores[i] for i in ids) for ids in found])
        shares = np.exp(scores - scores.max())
        return found, shares / shares.sum()

    def _is(self, ids: Sequence[int]) -> bool:
        """Whether a segmentation may be read: none with an unknown piece, none with a second beginning of a word.

        The latter would be two words: a space as a piece of its own, then a letter run that begins with a space.
        """
        return self._stay.isdisjoint(ids) and self._begin.isdisjoint(ids[1:])


def _model(tokenizer: Tokenizer) -> tuple[dict[str, Any], set[int]]:
    """The unigram model of a tokenizer, and the ids that were added to it. Raises RequestError if it has none."""
    tree = json.loads(tokenizer.to_json())
    model = tree["model"]
    if model.get("type") != "Unigram":
        kind = {"WordLevel": "words", "BPE": "merged pairs (BPE)"}.get(model.get("type"), str(model.get("type")))
        problem = f"the tokenizer has {kind}, of which no segmentation is more likely than another"
        raise RequestError(f"train.subword_sampling.alpha: {problem}; leave it out, or take one of subwords (unigram)")
    return model, {entry["id"] for entry in tree.get("added_tokens") or ()}


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
