"""Generation defaults of a network that depend on its vocabulary: end tokens, forced and suppressed tokens.

They come from generation_config.json. Settings of the search are in `generation/settings.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sourcewise.errors import RequestError

Ids = tuple[int, ...]
FIRST, LAST = "forced_bos_token_id", "forced_eos_token_id"
SUPPRESSED, BEGIN_SUPPRESSED, WORDS = "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"
BIASES, DECAY, NORMALISED = "sequence_bias", "exponential_decay_length_penalty", "renormalize_logits"
KEYS = (FIRST, LAST, SUPPRESSED, BEGIN_SUPPRESSED, WORDS, BIASES, DECAY, NORMALISED)


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """End tokens, forced and suppressed tokens, and biases, with the meaning of transformers' `generate`."""

    ends: Ids = ()  # end tokens; the first is the network's `eos_id`
    suppressed: Ids = ()  # suppress_tokens and single bad words
    begin_suppressed: Ids = ()  # begin_suppress_tokens: not the first token (the second, if the first is forced)
    bad_words: tuple[Ids, ...] = ()  # bad words of several tokens: the last may not follow the others
    forced_bos: Ids = ()  # forced_bos_token_id: the first token is one of these
    forced_eos: Ids = ()  # forced_eos_token_id: the last token at max_new_tokens is one of these
    biases: tuple[tuple[Ids, float], ...] = ()  # sequence_bias: added to the last token's score after the others
    decay: tuple[int, float] | None = None  # exponential_decay_length_penalty: start, and factor of the end's score
    normalised: bool = False  # renormalize_logits: scores are log-probabilities again after these rules

    @classmethod
    def read(cls, told: Mapping[str, Any], where: str, ends: Ids, vocabulary: int) -> GenerationDefaults:
        """Read a generation_config.json with the name `where`. Raises RequestError with the wrong key."""
        words = [_ids(word, WORDS, where) for word in _list(told, WORDS, where)]
        words = [word for word in words if word and word not in [(end,) for end in ends] and max(word) < vocabulary]
        suppressed = {*_given(told, SUPPRESSED, where), *(word[0] for word in words if len(word) == 1)}
        found = cls(
            ends,
            tuple(sorted(each for each in suppressed if 0 <= each < vocabulary)),
            tuple(each for each in _given(told, BEGIN_SUPPRESSED, where) if 0 <= each < vocabulary),
            tuple(word for word in words if len(word) > 1),
            _given(told, FIRST, where),
            _given(told, LAST, where),
            tuple(_bias(each, where) for each in _list(told, BIASES, where)),
            _decay(told, where),
            bool(told.get(NORMALISED)),
        )
        used_by = {FIRST: found.forced_bos, LAST: found.forced_eos, BIASES: sum(dict(found.biases), ())}
        for key, used in used_by.items():
            beyond = next((each for each in used if not 0 <= each < vocabulary), None)
            if beyond is not None:
                raise RequestError(f"{where}: {key} has the id {beyond}; the network embeds {vocabulary}")
        return found

    def write(self) -> dict[str, Any]:
        """The settings for a generation_config.json."""
        told: dict[str, Any] = {
            WORDS: [*([each] for each in self.suppressed), *map(list, self.bad_words)],
            BEGIN_SUPPRESSED: list(self.begin_suppressed),
            FIRST: _one(self.forced_bos),
            LAST: _one(self.forced_eos),
            BIASES: [[list(ids), bias] for ids, bias in self.biases],
            DECAY: self.decay and list(self.decay),
            NORMALISED: self.normalised or None,
        }
        suppressed_ends = [each for each in self.suppressed if each in self.ends]
        if suppressed_ends:  # which no bad word is
            told[WORDS] = [word for word in told[WORDS] if word[0] not in suppressed_ends or len(word) > 1]
            told[SUPPRESSED] = suppressed_ends
        return {key: value for key, value in told.items() if value not in (None, [])}

    @property
    def reshapes(self) -> bool:
        """Whether any rule reweights scores, rather than suppressing or forcing tokens."""
        return bool(self.biases or self.decay or self.normalised)

    @property
    def plain(self) -> bool:
        """Whether there are no rules, and only one end token."""
        return len(self.ends) < 2 and self == GenerationDefaults(self.ends)


def _one(ids: Ids) -> int | list[int] | None:
    return None if not ids else ids[0] if len(ids) == 1 else list(ids)


def _given(told: Mapping[str, Any], key: str, where: str) -> Ids:
    """The ids of a key, whose value is one id or a list."""
    value = told.get(key)
    return () if value is None else _ids(value if isinstance(value, Sequence) else [value], key, where)


def _list(told: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = told.get(key)
    if value is not None and not isinstance(value, list):
        raise RequestError(f"{where}: {key} should be a list, not {value!r:.80}")
    return value or []


def _ids(value: Any, key: str, where: str) -> Ids:
    if not isinstance(value, (list, tuple)) or not all(type(each) is int for each in value):
        raise RequestError(f"{where}: {key} should hold ids, not {value!r:.80}")
    return tuple(value)


def _bias(value: Any, where: str) -> tuple[Ids, float]:
    try:
        ids, bias = value
        if ids and math.isfinite(bias):
            return _ids(ids, BIASES, where), float(bias)
    except (TypeError, ValueError):
        pass
    raise RequestError(f"{where}: {BIASES} should hold pairs of a list of ids and a number, not {value!r:.80}")


def _decay(told: Mapping[str, Any], where: str) -> tuple[int, float] | None:
    value = told.get(DECAY)
    if value is None:
        return None
    try:
        start, factor = value
        return int(start), float(factor)
    except (TypeError, ValueError):
        raise RequestError(f"{where}: {DECAY} should be a count of tokens and a factor, not {value!r:.80}") from None
