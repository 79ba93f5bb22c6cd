"""Language codes of multilingual tokenizers: the code of targets, and whether it was chosen.

mBART encodes `text </s> code`, mBART-50, NLLB and M2M-100 `code text </s>`; sources have the source's code, targets the
target's. The target's code is in tokenizer_config.json (`tgt_lang`), or in the model's settings: the forced first token
of outputs, or the decoder's start token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sourcewise.errors import RequestError

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}|__[a-z]+(_[A-Za-z]+)?__|<\|[a-z]{2,3}\|>")


@dataclass(frozen=True, slots=True)
class Languages:
    """The language codes of sources and targets; `chosen` names the setting of the target's, empty: none.

    `switches`: the tokenizer's class can give targets another code than sources.
    """

    source: str
    target: str
    chosen: str = ""
    switches: bool = True

    @property
    def said(self) -> str:
        """The codes in words, for a note."""
        by = f" ({self.chosen})" if self.chosen else "; no target language is set"
        return f"sources are marked {self.source}, targets {self.target}{by}"

    @property
    def cure(self) -> str:
        """How to choose other languages, in words."""
        what = '"src_lang" and "tgt_lang"' if self.switches else 'the "tokenizer_class" of the model and "tgt_lang"'
        return f"set {what} in its tokenizer_config.json, and forced_bos_token_id in its generation_config.json"


def code_of(language: str, find: Callable[[str], int | None]) -> str:
    """The token of a language: of NLLB and mBART its name, of M2M-100 `__de__`, of Whisper `<|de|>`; empty: none."""
    bare = language.strip("_<|>")
    spellings = (language, f"__{bare}__", f"<|{bare}|>")
    return next((each for each in spellings if is_code(each) and find(each) is not None), "")


def refuse_language(language: str, side: str, known: Sequence[str]) -> RequestError:
    """The error of a language that a tokenizer does not have; `known` are the tokens of those that it has."""
    names = [name.strip("_<|>") for name in known]
    listed = f"it has {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}" if names else ""
    return RequestError(f"data.{side}_language: {language} is no language of the tokenizer; {listed or 'it has none'}")


def coded(names: Sequence[str]) -> Languages | None:
    """The language code among the special tokens around texts, for a tokenizer whose class has no languages."""
    found = [name for name in names if is_code(name)]
    return Languages(found[0], found[0], switches=False) if found else None


def is_code(token: str) -> bool:
    """Whether a token looks like a language code: de_DE, deu_Latn, en_XX, __de__."""
    return CODE.fullmatch(token) is not None


def check_language(languages: Languages | None, model: str, forced: str, start: str) -> None:
    """Raises RequestError if targets have no language code in training, or another than in generation.

    `forced` is the forced first token of outputs, `start` the decoder's start token.
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
