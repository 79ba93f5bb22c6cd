"""A tokenizer that was trained on sets on disk is kept beside them, so that the same is not trained again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from sourcewise.data.examples import Kept
from sourcewise.data.stored.store import part_of
from sourcewise.data.tokenizers.tokenizer import Tokenizer

VERSION = 1  # of how tokenizers are trained
FILE = "tokenizer.json"


def kept_tokenizer(
    sets: Sequence[Kept],
    texts: Iterable[str],
    vocabulary: int,
    unit: Literal["subwords", "words", "characters"],
    special: Sequence[str],
) -> Tokenizer:
    """`Tokenizer.train` on the texts of these sets, or what it gave before. Raises RequestError."""
    how = (VERSION, [each.key for each in sets], vocabulary, unit, list(special))

    def make(part: Path) -> dict[str, Any]:
        Tokenizer.train(texts, vocabulary, unit, special).save(part / FILE)
        return {}

    name = f"tokenizer-{hashlib.blake2b(repr(how).encode(), digest_size=10).hexdigest()}"
    folder, _ = part_of(sets[0].folder, name, make)
    return Tokenizer.load(folder / FILE)
