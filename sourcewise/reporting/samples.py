"""Samples of a run for its report: outputs beside references, some of them by token with source bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from sourcewise.evaluation.results import Row
from sourcewise.evaluation.shown import Shown
from sourcewise.generation.trace import NO_SOURCE, visible
from sourcewise.metrics.texts import words

MUCH = 8.0  # source bits with the full colour
MOST_CHARACTERS, LONGEST_NAME = 400, 32  # of a source; of an output as the name of its trace


@dataclass(frozen=True, slots=True)
class Token:
    """A token for display: text, source bits in words, and `lit`, the strength of its colour from 0 to 1."""

    text: str
    bits: str
    lit: float
    made_up: bool  # does not depend on the source
    differs: bool  # has no counterpart in the other text
    begins: bool  # follows a space
    special: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """An example by token; `trace` is the index of its trace, `name` its shortened output."""

    id: str
    name: str
    source: str
    reference: list[Token]
    output: list[Token]
    exact: bool
    cut: bool
    trace: int


def token_samples(shown: Sequence[Shown]) -> list[Sample]:
    """Samples by token, from the examples of traces.json."""
    return [_sample(each, place) for place, each in enumerate(shown)]


def text_samples(rows: Sequence[Row], shown: Sequence[Shown], most: int) -> list[Row]:
    """At most `most` rows in all, spread evenly over the set, without the examples in `shown`."""
    known = {each.id for each in shown}
    others = [row for row in rows if row.id not in known]
    count = max(0, most - len(shown))
    return [others[i * len(others) // count] for i in range(count)] if len(others) > count else others


def differences(output: str, reference: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts as lists of (substring, differs), compared by words; joined, the substrings are the texts."""
    given, expected = _with_spaces(output), _with_spaces(reference)
    sides: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for tag, i1, i2, j1, j2 in _compared([w.strip() for w in given], [w.strip() for w in expected]):
        for pieces, part in zip(sides, ("".join(given[i1:i2]), "".join(expected[j1:j2])), strict=True):
            text = part.rstrip()  # the space behind is not part of the difference
            pieces += [(text, tag != "equal"), (part[len(text) :], False)]
    return [p for p in sides[0] if p[0]], [p for p in sides[1] if p[0]]


def _sample(shown: Shown, place: int) -> Sample:
    trace: dict[str, Any] = shown.trace
    output = [(step["text"], step["bits"]) for step in trace["steps"]]
    texts = [text for text, _ in output], [text for text, _ in shown.reference]
    differing: tuple[set[int], set[int]] = (set(), set())
    for tag, i1, i2, j1, j2 in _compared(*texts):
        if tag != "equal":
            differing[0].update(range(i1, i2))
            differing[1].update(range(j1, j2))
    features = trace["source"]["features"]
    source = trace["source"]["text"]
    if features is not None:
        source = f"{features['frames']} frames of {features['dims']} values" + (
            f", beside {source!r}" if source else ""
        )
    return Sample(
        id=shown.id,
        name=_shortened(" ".join(trace["output"]["text"].split()) or shown.id, LONGEST_NAME),
        source=_shortened(source, MOST_CHARACTERS),
        reference=[_token(*pair, i in differing[1]) for i, pair in enumerate(shown.reference)],
        output=[_token(*pair, i in differing[0]) for i, pair in enumerate(output)],
        exact=texts[0] == texts[1],
        cut=shown.cut,
        trace=place,
    )


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _token(text: str, bits: float | None, differs: bool) -> Token:
    known = bits is not None and math.isfinite(bits)
    value = bits if bits is not None and known else 0.0
    special = text.startswith("<") and text.endswith(">")
    return Token(
        text=visible(text),
        bits=f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−") if known else "",
        lit=round(min(1.0, max(0.0, value / MUCH)), 3),
        made_up=known and value < NO_SOURCE,
        differs=differs,
        begins=text[:1].isspace() or special,
        special=special,
    )


def _compared(given: Sequence[str], expected: Sequence[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, list(given), list(expected), autojunk=False).get_opcodes()


def _with_spaces(text: str) -> list[str]:
    """Words of a text, each with the spaces that follow it."""
    starts, position = [], 0
    for word in words(text):
        position = text.index(word, position)
        starts.append(position)
        position += len(word)
    edges = [0, *starts[1:], len(text)] if starts else [0, len(text)]
    return [text[a:b] for a, b in pairwise(edges) if b > a]
