"""What `Model.generate` returns: a list of texts, with the n-best outputs of each source and their scores beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import tell
from sourcewise.generation.trace import NO_SOURCE, Slot
from sourcewise.generation.words import unwritten


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an output, the end of text included."""

    id: int
    text: str
    log_probability: float  # ln p by the network itself, before any token is suppressed, forced or penalised
    source_bits: float  # log2 p minus the mean log2 p with other sources; NaN without other sources
    slot: int | None  # the source slot with most cross-attention, averaged over layers and heads; None: no attention
    given: bool = False  # part of a beginning that was given


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a source; without `scores`, tokens are empty and log-probability and source bits NaN."""

    text: str
    score: float  # of the search: Σ ln p after its rules, with beams divided by length^length_penalty
    finished: bool  # by an end token or a stop text, not by its length
    ids: tuple[int, ...] = ()  # with the end of text
    tokens: tuple[Token, ...] = ()
    utility: float | None = None  # of minimum Bayes risk
    least_bits: float = math.nan  # source bits per token against the other source that explains the output best

    def __str__(self) -> str:
        return self.text

    @property
    def _said(self) -> list[Token]:
        return [token for token in self.tokens if not token.given]

    @property
    def log_probability(self) -> float:
        """Σ ln p of the tokens, without a beginning that was given."""
        return math.fsum(token.log_probability for token in self._said) if self.tokens else math.nan

    @property
    def source_bits(self) -> float:
        """Mean source bits per token, without a beginning that was given.

        Near zero or below: the output is as likely without its source, as a hallucination is. No reference is needed.
        """
        return math.fsum(token.source_bits for token in self._said) / len(self._said) if self._said else math.nan

    @property
    def made_up(self) -> bool:
        """Whether the output does not depend on its source: one of the others explains it as well.

        The bound is that of the verdict, 0.1 bits per token.
        """
        return self.least_bits < NO_SOURCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values; without a number where it is not known."""
        told: dict[str, Any] = {"text": self.text, "score": self.score, "finished": self.finished}
        if self.utility is not None:
            told["utility"] = self.utility
        if self.tokens:
            told |= {
                "log_probability": self.log_probability,
                "source_bits": known(self.source_bits),
                "least_bits": known(self.least_bits),
                "made_up": None if math.isnan(self.source_bits) else self.made_up,
                "tokens": [_token(token) for token in self.tokens],
            }
        return told


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of one source, best first."""

    best_first: tuple[Output, ...]
    slots: tuple[Slot, ...] = ()  # of the source, which tokens refer to; with scores alone
    against: str = ""  # the other sources of `source_bits`, in words; with scores alone

    @property
    def best(self) -> Output:
        """The first."""
        return self.best_first[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values."""
        told: dict[str, Any] = {"outputs": [output.to_dict() for output in self.best_first]}
        if self.best.tokens:
            told |= {"slots": [_slot(slot) for slot in self.slots], "against": self.against}
        return told


class Generated(list[str]):
    """The best text of every source, a list as any other; `of[i]` has all outputs of source i, with their scores."""

    def __init__(self, of: Iterable[Outputs]) -> None:
        self.of = list(of)
        super().__init__(each.best.text for each in self.of)


def known(value: float) -> float | None:
    """The value, or None for NaN, which JSON has not."""
    return None if math.isnan(value) else value


def _token(token: Token) -> dict[str, Any]:
    told: dict[str, Any] = {"id": token.id, "text": token.text, "log_probability": token.log_probability}
    told |= {"source_bits": known(token.source_bits), "slot": token.slot}
    return told | ({"given": True} if token.given else {})


def _slot(slot: Slot) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": slot.kind}
    if slot.text:
        told["text"] = slot.text
    return told | ({"frames": list(slot.frames)} if slot.frames else {})


def tell_words(found: Generated, options: GenerationConfig, tokenizer: Tokenizer) -> None:
    """Tell how many outputs lack a forced word or hold a suppressed one otherwise spelt, and which stops never come."""
    texts = [output.text for each in found.of for output in each.best_first]
    lacking = sum(any(word.strip() not in text for word in options.force) for text in texts)
    if lacking:
        way = "raise max_new_tokens or beams"
        tell(f"{lacking:,} of {len(texts):,} outputs lack a forced word: there was no room for it; {way}")
    barred = [re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)") for word in options.suppress]
    holding = sum(any(word.search(text) for word in barred) for text in texts)
    if holding:
        what = "hold a suppressed word, spelt by other tokens"
        tell(f"{holding:,} of {len(texts):,} outputs {what}; allowed_tokens (Python) can bar those")
    for stop in options.stop:
        lost = unwritten(tokenizer, stop)
        if lost:
            tell(f"stop {stop!r}: the tokenizer cannot write {lost!r}, so that no output ends there")
