"""What options say in words, as ids: suppressed words, a given beginning, and texts that end an output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a search; empty where options name none."""

    tokenizer: Tokenizer | None = None
    opening: Ids = ()  # special tokens before a target, if a beginning is given
    prefix: Ids = ()  # of the given beginning
    barred: tuple[Ids, ...] = ()  # of suppressed words, as Hugging Face's bad_words_ids
    forced: tuple[tuple[Ids, ...], ...] = ()  # of each word that has to come, in several spellings
    stops: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: GenerationConfig, tokenizer: Tokenizer | None) -> Words:
        """Raises RequestError for a word that the tokenizer cannot spell."""
        if not (options.suppress or options.force or options.target_prefix or options.stop):
            return cls(tokenizer)
        if tokenizer is None:
            raise ValueError("these options ask for a tokenizer")
        barred = tuple(dict.fromkeys(ids for word in options.suppress for ids in spellings(tokenizer, word)))
        return cls(
            tokenizer,
            tuple(tokenizer.opening_of_target),
            tuple(tokenizer.inner(options.target_prefix)) if options.target_prefix else (),
            barred,
            tuple(spellings(tokenizer, word) for word in options.force),
            tuple(options.stop),
        )

    def ends(self, ids: Sequence[int], given: int = 0) -> bool:
        """Whether the text of these ids holds a text that ends an output, and that is not all in the first `given`."""
        if not self.stops:
            return False
        assert self.tokenizer is not None
        text, known = self.tokenizer.decode(ids), len(self.tokenizer.decode(ids[:given])) if given else 0
        return any(text.find(stop, max(0, known + 1 - len(stop))) >= 0 for stop in self.stops)

    def ended(self, tokens: Tensor, given: int) -> Tensor:
        """The same for tokens (..., time): (...) bool."""
        if not self.stops:
            return torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
        rows = tokens.flatten(0, -2).tolist()
        found = torch.tensor([self.ends(ids, given) for ids in rows], dtype=torch.bool, device=tokens.device)
        return found.view(tokens.shape[:-1])


def spellings(tokenizer: Tokenizer, word: str) -> tuple[Ids, ...]:
    """The ids of a word at the beginning of a text and after a space. Raises RequestError if it has none."""
    known = {tuple(tokenizer.inner(text)) for text in (word, f" {word}")}
    found = tuple(sorted(ids for ids in known if ids))
    if not found or any(tokenizer.decode(ids).strip() != word.strip() for ids in found):
        spelt = tokenizer.decode(found[0]) if found else ""
        raise RequestError(f"generation: {word!r}: the tokenizer cannot spell this word (it reads {spelt!r})")
    return found


def unwritten(tokenizer: Tokenizer, text: str) -> str:
    """The characters of a text that the tokenizer does not give back, such as the line end of a T5."""
    return "".join(c for c in dict.fromkeys(text) if c not in tokenizer.decode(tokenizer.inner(f"a{c}a")))
