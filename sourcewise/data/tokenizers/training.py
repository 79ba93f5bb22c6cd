"""Trains tokenizers of subwords, words or characters.

These tokenizers are lossless: Unicode forms, spaces and line ends are kept. A space belongs to the piece that follows
it. A text is encoded as if it followed a space, so that its first word has the same piece as elsewhere; a space at the
beginning of the text is then an additional piece. So every text of known characters is decoded exactly.

SentencePiece trains subwords and characters, since on one thread it gives the same bytes for the same texts in every
process, while the trainer of `tokenizers` depends on the order of hash maps.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Model, WordLevel

from sourcewise.data.tokenizers.sentencepiece_models import (
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    SentencePieceModel,
    parse,
    unigram,
)
from sourcewise.errors import RequestError

Unit = Literal["subwords", "words", "characters"]

RESERVED = {"▅", "\0", SPACE}  # reserved by SentencePiece, which skips texts with them
LAYOUT = ("\n", "\t", "\r")  # single ids if texts have them: code, lists, tables
FIRST = r"\A "  # the space at the beginning of a text, which is doubled
KINDS: dict[Unit, Literal["unigram", "char"]] = {"subwords": "unigram", "characters": "char"}
END, UNK = "</s>", "<unk>"
SOME = 10_000  # texts that are looked at together
SAMPLE = 500_000  # texts for training; of more, every n-th is used
SPECIAL = [("<pad>", 0.0, CONTROL), (END, 0.0, CONTROL), (UNK, 0.0, UNKNOWN)]
# A run of letters or one other character, with the space before it; or a single space.
WORD = r" ?(?:[\p{L}\p{M}]+|[^\p{L}\p{M} ])| "


def train(
    texts: Iterable[str],
    vocabulary: int,
    unit: Unit = "subwords",
    special: Sequence[str] = (),
) -> Tokenizer:
    """A `tokenizers.Tokenizer` in T5's layout: pad 0, end of text 1, unknown 2, `special` last. Raises RequestError."""
    texts = list(texts) if isinstance(texts, Iterator) else texts  # read twice
    count, characters = _seen(texts)
    if not any(map(str.strip, characters)):
        raise RequestError("tokenizer: no text to train on; the training set's sources and targets are empty")
    sample = list(islice(filter(None, texts), 0, None, -(-count // SAMPLE)))
    if unit == "words":
        tokenizer = _words(sample, vocabulary)
    else:
        tokenizer = _tokenizer(unigram(_pieces(sample, vocabulary, characters, KINDS[unit])))
    # They stand between words, so that no space is kept before them.
    tokenizer.add_special_tokens([AddedToken(name, lstrip=True, normalized=True, special=True) for name in special])
    return tokenizer


def _seen(texts: Iterable[str]) -> tuple[int, set[str]]:
    """The number of texts that are not empty, and their characters but for the space."""
    count, characters, filled = 0, set[str](), filter(None, texts)
    while some := list(islice(filled, SOME)):
        count += len(some)
        characters.update("".join(some))
    return count, characters - {" "}


def _tokenizer(model: Model) -> Tokenizer:
    """A tokenizer around a model with lossless steps, which appends the end of text."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(Regex(FIRST), "  ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement=" ", prepend_scheme="first", split=True)
    # Normalized: they are looked for in the whole text, and what stands between two of them does not begin one.
    names = [AddedToken(name, normalized=True, special=True) for name, _, _ in SPECIAL]
    tokenizer.add_special_tokens(names)
    (eos,) = (i for i, (name, _, _) in enumerate(SPECIAL) if name == END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, eos)]
    )
    return tokenizer


def _words(lines: Sequence[str], vocabulary: int) -> Tokenizer:
    """A word-level model: words, punctuation marks and digits, each with the space before it.

    The most frequent ones are in the vocabulary; all others are <unk>, which decodes to nothing.
    """
    cut = _tokenizer(WordLevel({UNK: 0}, unk_token=UNK))
    cut.pre_tokenizer = pre_tokenizers.Sequence([cut.pre_tokenizer, pre_tokenizers.Split(Regex(WORD), "isolated")])
    counts = Counter(
        word for line in lines for word, _ in cut.pre_tokenizer.pre_tokenize_str(cut.normalizer.normalize_str(line))
    )
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - len(SPECIAL)]
    names = [*(name for name, _, _ in SPECIAL), *ranked]
    tokenizer = _tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=UNK))
    tokenizer.pre_tokenizer = cut.pre_tokenizer
    return tokenizer


def _pieces(
    lines: Sequence[str], vocabulary: int, characters: set[str], kind: Literal["unigram", "char"]
) -> SentencePieceModel:
    """A model of subwords or characters that covers every character of the texts; spaces are not replaced."""
    import sentencepiece

    spaced = str.maketrans(dict.fromkeys(RESERVED, " "))
    layout = [mark for mark in LAYOUT if mark in characters]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line.translate(spaced) for line in lines),
            model_writer=model,
            model_type=kind,
            # Space for every character, the space and the three special tokens.
            vocab_size=max(vocabulary, len(characters) + 8),
            hard_vocab_limit=False,
            required_chars="".join(sorted(characters - RESERVED - set(LAYOUT))),
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=not layout,
            user_defined_symbols=layout,
            split_digits=True,
            max_sentence_length=max(10, *(len(line.encode()) for line in lines)),  # longer lines would be dropped
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
    # A character that texts have in the name of a special token alone (</s>) has no count, and its score no number.
    lowest = min(score for _, score, _ in parsed.pieces if math.isfinite(score))
    parsed.pieces = [(text.replace(SPACE, " "), max(score, lowest), kind) for text, score, kind in parsed.pieces]
    known = {text for text, _, _ in parsed.pieces}
    parsed.pieces += [(character, lowest, NORMAL) for character in sorted({" ", *characters} - known)]
    return parsed
