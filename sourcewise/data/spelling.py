"""How texts of a set are changed before anything reads them: case, Unicode form, and the prefix of a task."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

from sourcewise.config import DatasetConfig
from sourcewise.data.examples import Example

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


@dataclass(frozen=True, slots=True)
class Spelling:
    """Lower case of both sides; the Unicode form of sources, and a space between their letters; what is put before."""

    prefix: str = ""
    lowercase: bool = False
    form: Form | None = None
    letters: bool = False

    @classmethod
    def of(cls, config: DatasetConfig, prefix: str | None = None) -> Spelling:
        """That of a set, or with another prefix."""
        before = config.prefix if prefix is None else prefix
        return cls(before, config.lowercase, config.source_form, config.source_letters)

    def target(self, text: str) -> str:
        """A target, spelled so."""
        return text.lower() if self.lowercase else text

    def source(self, text: str) -> str:
        """A source, spelled so."""
        return self.prefix + self._inner(text)

    def example(self, example: Example) -> Example:
        """An example, spelled so; of a conversation the prefix stands before the first turn."""
        turns = tuple(map(self._inner, example.turns))
        if turns:
            turns = (self.prefix + turns[0], *turns[1:])
        others = tuple(map(self.target, example.others))
        return replace(
            example, source=self.source(example.source), target=self.target(example.target), turns=turns, others=others
        )

    def _inner(self, text: str) -> str:
        text = self.target(text)
        text = unicodedata.normalize(self.form, text) if self.form else text
        return " ".join("".join(text.split())) if self.letters else text


NOTHING = Spelling()
