"""Tokenizers that mark a text with its language: which code targets carry, and whether anybody chose it.

mBART writes `text </s> code`, mBART-50, NLLB and M2M-100 `code text </s>`; sources carry the source's code, targets the
target's. Which one that is stands in tokenizer_config.json (`tgt_lang`), or in the model's own settings: the token that
outputs are forced to begin with, or the decoder's start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sourcewise.errors import RequestError

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}|__[a-z]+(_[a-z]+)?__")


@dataclass(frozen=True, slots=True)
class Languages:
    """The codes that sources and targets carry; `chosen` says by what the target's was, empty: by nothing.

    `switches`: the tokenizer's class can mark targets otherwise than sources.
    """

    source: str
    target: str
    chosen: str = ""
    switches: bool = True

    @property
    def said(self) -> str:
        """What a person should know of them, in a line."""
        by = f" ({self.chosen})" if self.chosen else "; no target language is set"
        return f"sources are marked {self.source}, targets {self.target}{by}"

    @property
    def cure(self) -> str:
        """How to choose others."""
        what = '"src_lang" and "tgt_lang"' if self.switches else 'the "tokenizer_class" of the model and "tgt_lang"'
        return f"set {what} in its tokenizer_config.json, and forced_bos_token_id in its generation_config.json"


def coded(names: Sequence[str]) -> Languages | None:
    """Of a tokenizer whose class knows no languages: the code among the special tokens around its texts."""
    found = [name for name in names if is_code(name)]
    return Languages(found[0], found[0], switches=False) if found else None


def is_code(token: str) -> bool:
    """Whether a token looks like the mark of a language: de_DE, deu_Latn, en_XX, __de__."""
    return CODE.fullmatch(token) is not None


def check_language(languages: Languages | None, model: str, forced: str, start: str) -> None:
    """Raise RequestError where training would teach no language, or another than generation asks for.

    `forced` and `start` are the tokens that outputs are forced to begin with, and that the decoder starts with.
    """
    if languages is None:
        return
    own = [token for token in (forced, start) if is_code(token)]
    if own and own[0] != languages.target:
        problem = f"targets are marked {languages.target}, but its outputs begin with {own[0]}"
    elif not own and not languages.chosen:
        problem = f"targets are marked {languages.target}, as sources are, and no target language is set"
    else:
        return
    raise RequestError(f"{model}: {problem}; {languages.cure}")
