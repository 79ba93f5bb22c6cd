"""Small tasks that are learned in seconds: German number words into English ones, and their like."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

PAD, EOS, UNK, BOS = range(4)
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>"]
GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FRENCH = ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"]
Pair = tuple[str, str]


def numbers(count: int, seed: int, low: int = 2, high: int = 5, target: Sequence[str] = ENGLISH) -> list[Pair]:
    """Pairs such as ("drei null acht", "three zero eight"); no source comes twice in `count`."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        digits = [draw.randrange(10) for _ in range(draw.randint(low, high))]
        found[" ".join(GERMAN[d] for d in digits)] = " ".join(target[d] for d in digits)
    return list(found.items())


def split(pairs: Sequence[Pair], valid: int = 96) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and the last ones to validate on."""
    return list(pairs[:-valid]), list(pairs[-valid:])


def vocabulary(*more: str, extra: Sequence[str] = ()) -> list[str]:
    """Special pieces, the number words of both languages, and more."""
    return list(dict.fromkeys([*SPECIAL, *GERMAN, *ENGLISH, *more, *extra]))


def word_tokenizer(words: Sequence[str], end: bool = True) -> Any:
    """A tokenizer of whole words, as a fast one of transformers; each text ends in </s> unless told otherwise."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)
