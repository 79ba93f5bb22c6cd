"""What a network says of its outputs by ids: how they begin and end, and what they never hold.

These are settings of a generation_config.json that belong to a vocabulary. How to search is `generation/settings.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sourcewise.errors import RequestError

Ids = tuple[int, ...]
FIRST, LAST = "forced_bos_token_id", "forced_eos_token_id"
BARRED, BARRED_FIRST, WORDS = "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"
BIASES, DECAY, NORMALISED = "sequence_bias", "exponential_decay_length_penalty", "renormalize_logits"
KEYS = (FIRST, LAST, BARRED, BARRED_FIRST, WORDS, BIASES, DECAY, NORMALISED)


@dataclass(frozen=True, slots=True)
class Habits:
    """How outputs begin and end, and what they never hold: as transformers' `generate` obeys generation_config.json."""

    ends: Ids = ()  # each of them ends a text; the first is the network's `eos_id`
    barred: Ids = ()  # never said
    barred_first: Ids = ()  # not said as the first token (as the second, where the first is forced)
    barred_words: tuple[Ids, ...] = ()  # of several tokens: the last does not follow the others
    forced_first: Ids = ()  # an output begins with one of these
    forced_last: Ids = ()  # an output that fills max_new_tokens ends with one of these
    biases: tuple[tuple[Ids, float], ...] = ()  # added to the score of the last token where it follows the others
    decay: tuple[int, float] | None = None  # from so many tokens on the end gets likelier, by this factor
    normalised: bool = False  # scores are log-probabilities again after all this

    @classmethod
    def read(cls, told: Mapping[str, Any], where: str, ends: Ids, vocabulary: int) -> Habits:
        """From a generation_config.json, called `where`. Raises RequestError that names the key that is wrong."""
        words = [_ids(word, WORDS, where) for word in _list(told, WORDS, where)]
        words = [word for word in words if word and word not in [(end,) for end in ends] and max(word) < vocabulary]
        barred = {*_given(told, BARRED, where), *(word[0] for word in words if len(word) == 1)}
        found = cls(
            ends,
            tuple(sorted(each for each in barred if 0 <= each < vocabulary)),
            tuple(each for each in _given(told, BARRED_FIRST, where) if 0 <= each < vocabulary),
            tuple(word for word in words if len(word) > 1),
            _given(told, FIRST, where),
            _given(told, LAST, where),
            tuple(_bias(each, where) for each in _biases(told, where)),
            _decay(told, where),
            bool(told.get(NORMALISED)),
        )
        for key, used in (
            (FIRST, found.forced_first),
            (LAST, found.forced_last),
            (BIASES, sum(dict(found.biases), ())),
        ):
            beyond = next((each for each in used if not 0 <= each < vocabulary), None)
            if beyond is not None:
                raise RequestError(f"{where}: {key} has the id {beyond}; the network embeds {vocabulary}")
        return found

    def write(self) -> dict[str, Any]:
        """For a generation_config.json."""
        told: dict[str, Any] = {
            WORDS: [*([each] for each in self.barred), *map(list, self.barred_words)],
            BARRED_FIRST: list(self.barred_first),
            FIRST: _one(self.forced_first),
            LAST: _one(self.forced_last),
            BIASES: [[list(ids), bias] for ids, bias in self.biases],
            DECAY: self.decay and list(self.decay),
            NORMALISED: self.normalised or None,
        }
        barred_ends = [each for each in self.barred if each in self.ends]
        if barred_ends:  # which no bad word is
            told[WORDS] = [word for word in told[WORDS] if word[0] not in barred_ends or len(word) > 1]
            told[BARRED] = barred_ends
        return {key: value for key, value in told.items() if value not in (None, [])}

    @property
    def reshapes(self) -> bool:
        """Whether scores are changed, beyond barring and forcing."""
        return bool(self.biases or self.decay or self.normalised)

    @property
    def plain(self) -> bool:
        """Whether a network says whatever is likeliest, and has one end."""
        default = Habits(self.ends)
        return len(self.ends) < 2 and all(getattr(self, f.name) == getattr(default, f.name) for f in fields(self))

    def ending(self, *ends: int) -> Habits:
        """The same with these ends."""
        return replace(self, ends=ends)


def _one(ids: Ids) -> int | list[int] | None:
    return None if not ids else ids[0] if len(ids) == 1 else list(ids)


def _given(told: Mapping[str, Any], key: str, where: str) -> Ids:
    """The ids of a key that holds one or a list of them."""
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


def _biases(told: Mapping[str, Any], where: str) -> list[Any]:
    return _list(told, BIASES, where)


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
