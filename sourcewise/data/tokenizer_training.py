"""Training a tokenizer.

SentencePiece trains: on one thread it gives the same bytes for the same texts, in every process, where the trainer
of `tokenizers` walks hash maps in an order that differs.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from typing import Literal

from tokenizers import Tokenizer

from sourcewise.data.sentencepiece_models import NORMAL, SPACE, convert, parse
from sourcewise.errors import RequestError

RESERVED = {"▅", "\0"}  # SentencePiece keeps them for itself, and skips texts that hold them
SAMPLE = 1_000_000  # texts looked at; of more, every n-th


def train(texts: Iterable[str], vocabulary: int, kind: Literal["unigram", "char"] = "unigram") -> Tokenizer:
    """A `tokenizers.Tokenizer` in T5's layout: pad 0, end of text 1, unknown 2. Raises RequestError."""
    import sentencepiece

    lines = [line for line in (tidy(text) for text in texts) if line]
    characters = set().union(*lines) - {" "} if lines else set()
    if not characters:
        raise RequestError("tokenizer: no text to train on; the training set's sources and targets are empty")
    stride = -(-len(lines) // SAMPLE)
    spaced = str.maketrans(dict.fromkeys(RESERVED, " "))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line.translate(spaced) for line in lines[::stride]),
            model_writer=model,
            model_type=kind,
            # Room for every character, the space and the three special tokens.
            vocab_size=max(vocabulary, len(characters) + 8),
            hard_vocab_limit=False,
            required_chars="".join(sorted(characters - RESERVED)),
            character_coverage=1.0,
            normalization_rule_name="identity",
            split_digits=True,
            max_sentence_length=max(10, *(len(line.encode()) for line in lines)),  # longer ones would be dropped
            num_threads=1,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece="<pad>",
            eos_piece="</s>",
            unk_piece="<unk>",
            minloglevel=2,
        )
    except RuntimeError as error:
        raise RequestError(f"tokenizer: cannot be trained on these texts: {str(error).splitlines()[0]}") from None
    parsed = parse(model.getvalue())
    lowest = min(score for _, score, _ in parsed.pieces)
    known = {text for text, _, _ in parsed.pieces}
    parsed.pieces += [(character, lowest, NORMAL) for character in sorted(characters - known)]
    return convert(parsed, tidy=True)


def tidy(text: str) -> str:
    """NFC, one space between words, none at the ends: what a trained tokenizer keeps of a text."""
    return " ".join(unicodedata.normalize("NFC", text).replace(SPACE, " ").split())
