"""Figures of outputs and references, without the model: `output_metrics`, and those of plug-ins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sourcewise.errors import tell
from sourcewise.figures import Figure, figures
from sourcewise.metrics.counting import USUAL, Counting, References, as_references, scorers
from sourcewise.metrics.texts import plain, words

# Degenerate repetition: at least so many times in a row, and at least so many more than in the reference.
WORD_REPEATS = 3
CHARACTER_REPEATS = 8
LONGEST_CHARACTER_UNIT = 8
EXCESS_REPEATS = 2

_reported: set[str] = set()  # figures whose failure was reported, since a training evaluates many times


def output_metrics(
    references: Sequence[str] | References,
    outputs: Sequence[str],
    finished: Sequence[bool],
    counting: Counting = Counting(),
    extra: Iterable[str] = (),
) -> dict[str, Any]:
    """The figures of `metrics.json` that need only texts; every `_pct` is within 0..100, `wer` a share (0.15, not 15).

    An example has one reference, or several. `bleu`, `bleu_1` to `bleu_4`, `chrf`, `wer`, `cer`, `exact_match_pct`,
    and those of ON_REQUEST in `extra`, each with a `_signature` · `unique_pct`, `reference_unique_pct`: distinct texts
    per hundred examples (of several references the first) · `top_output_pct`: share of the commonest output ·
    `length_ratio`, `length_sd_ratio`: see the functions · `unfinished_pct`: outputs cut by the length limit.
    Raises ValueError for no examples or lists of unequal length, RequestError for a tokenizer that is not installed.
    """
    if not len(references) == len(outputs) == len(finished):
        raise ValueError(f"{len(references)} references, {len(outputs)} outputs, {len(finished)} ends: not alike")
    if not references:
        raise ValueError("no examples: there is nothing to measure")
    several = as_references(references)
    counted = scores_of(several, outputs, counting, [*USUAL, *extra])
    found = form_of([each[0] for each in several], outputs)
    return counted | found | {"unfinished_pct": _pct([not f for f in finished]), "examples": len(references)}


def scores_of(
    references: References, outputs: Sequence[str], counting: Counting, keys: Iterable[str]
) -> dict[str, Any]:
    """Key → score, and key with `_signature` → signature, for keys of SCORES."""
    found: dict[str, Any] = {}
    for key, each in scorers(dict.fromkeys(keys), references, counting).items():
        found |= {key: each.score(outputs), f"{key}_signature": each.signature}
    return found


def form_of(references: Sequence[str], outputs: Sequence[str]) -> dict[str, float]:
    """How varied, how long, how empty and how repetitive outputs are, beside one reference per example."""
    plain_outputs = [plain(o) for o in outputs]
    return {
        "unique_pct": 100 * len(set(plain_outputs)) / len(outputs),
        "reference_unique_pct": 100 * len({plain(r) for r in references}) / len(references),
        "top_output_pct": 100 * Counter(plain_outputs).most_common(1)[0][1] / len(outputs),
        "length_ratio": length_ratio(references, outputs),
        "length_sd_ratio": length_sd_ratio(references, outputs),
        "empty_pct": _pct([not o for o in plain_outputs]),
        "repetition_pct": _pct([repeats(o, r) for r, o in zip(references, outputs, strict=True)]),
    }


def plugin_metrics(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """Key → value of every figure with a `measure` of its own; None if that fails or returns no number."""
    return {each.key: measured(each, outputs, references) for each in figures().values() if each.measure}


def measured(figure: Figure, outputs: Sequence[str], references: Sequence[str]) -> float | None:
    """The value of a plug-in's figure; None, and a warning once, if it fails or returns no number."""
    assert figure.measure is not None
    try:
        found: object = figure.measure(list(outputs), list(references))
        if isinstance(found, (bool, str)):
            raise TypeError(f"{found!r} is no number")
        return float(found)  # type: ignore[arg-type]
    except Exception as error:  # foreign code may raise anything
        if figure.key not in _reported:
            _reported.add(figure.key)
            tell(f"figure {figure.key} of {figure.measure.__module__}: left out: {type(error).__name__}: {error}")
        return None


def length_ratio(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Words of all outputs divided by words of all references (at least one)."""
    return sum(len(words(o)) for o in outputs) / max(1, sum(len(words(r)) for r in references))


def length_sd_ratio(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Standard deviation of output lengths divided by that of reference lengths, in words.

    Near 0 all outputs have the same length. If all references have the same length, it is 1 + the deviation of the
    outputs, so that equal spreads still give 1.
    """
    of_outputs = float(np.std([len(words(o)) for o in outputs]))
    of_references = float(np.std([len(words(r)) for r in references]))
    return of_outputs / of_references if of_references > 0 else 1 + of_outputs


def repeats(output: str, reference: str) -> bool:
    """Whether an output has degenerate repetitions.

    True if an n-gram of words (n ≥ 1) occurs at least 3 times in direct succession, or a unit of 1 to 8 characters at
    least 8 times, and in both cases at least 2 times more than any n-gram of that size in the reference: "zero zero
    zero" may be right.
    """
    if _runs_away(words(output), words(reference), WORD_REPEATS, None):
        return True
    return _runs_away(list(plain(output)), list(plain(reference)), CHARACTER_REPEATS, LONGEST_CHARACTER_UNIT)


def longest_run(items: Sequence[str], size: int) -> int:
    """Largest number of direct successions of the same n-gram of this size; 0 if there is no such n-gram.

    ["the", "cat", "the", "cat", "sat"], 2 → 2.
    """
    if len(items) < size:
        return 0
    numbers = {item: i for i, item in enumerate(dict.fromkeys(items))}
    ids = np.array([numbers[item] for item in items])
    breaks = np.flatnonzero(np.concatenate([[True], ids[size:] != ids[:-size], [True]]))
    return int(np.diff(breaks).max() - 1) // size + 1  # m positions equal to the one `size` later: m // size more


def _runs_away(output: list[str], reference: list[str], repeats: int, largest: int | None) -> bool:
    if len(set(output)) == len(output):
        return False
    sizes = len(output) // repeats if largest is None else min(largest, len(output) // repeats)
    for size in range(1, sizes + 1):
        run = longest_run(output, size)
        if run >= repeats and run >= longest_run(reference, size) + EXCESS_REPEATS:
            return True
    return False


def _pct(flags: Sequence[bool]) -> float:
    return 100 * sum(flags) / len(flags)
