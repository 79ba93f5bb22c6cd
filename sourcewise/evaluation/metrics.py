"""Metrics of outputs and references, without the model.

Words are separated by spaces; in scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) every character
is a word. For all other text the figures equal those of sacrebleu and jiwer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sourcewise.errors import tell
from sourcewise.figures import Figure, figures

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_OTHER_UNSPACED = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"
_LINE_END = re.compile(r"\r\n?|\n")
_WORD = re.compile(rf"[{_HAN}{_OTHER_UNSPACED}]|[^\s{_HAN}{_OTHER_UNSPACED}]+")
_HAN_LETTER = re.compile(f"[{_HAN}]")
_UNSPACED_LETTER = re.compile(f"[{_HAN}{_OTHER_UNSPACED}]")

_NO_LETTERS = re.compile(r"[^\w]|_")

# Degenerate repetition: at least so many times in a row, and at least so many more than in the reference.
WORD_REPEATS = 3
CHARACTER_REPEATS = 8
LONGEST_CHARACTER_UNIT = 8
EXCESS_REPEATS = 2

_reported: set[str] = set()  # figures whose failure was reported, since a training evaluates many times


def output_metrics(references: Sequence[str], outputs: Sequence[str], finished: Sequence[bool]) -> dict[str, Any]:
    """The figures of `metrics.json` that need only texts; every `_pct` is within 0..100, `wer` a share (0.15, not 15).

    `bleu`, `chrf`: sacrebleu, 0..100, with `bleu_signature` · `wer`: word errors per reference word · `unique_pct`,
    `reference_unique_pct`: distinct texts per hundred examples · `top_output_pct`: share of the commonest output ·
    `length_ratio`, `length_sd_ratio`: see the functions · `unfinished_pct`: outputs cut by the length limit.
    Raises ValueError for no examples or lists of unequal length.
    """
    if not len(references) == len(outputs) == len(finished):
        raise ValueError(f"{len(references)} references, {len(outputs)} outputs, {len(finished)} ends: not alike")
    if not references:
        raise ValueError("no examples: there is nothing to measure")
    plain_references, plain_outputs = [plain(r) for r in references], [plain(o) for o in outputs]
    bleu, signature = bleu_score(references, outputs)
    return {
        "bleu": bleu,
        "bleu_signature": signature,
        "chrf": chrf_score(references, outputs),
        "wer": word_error_rate(references, outputs),
        "exact_match_pct": _pct([r == o for r, o in zip(plain_references, plain_outputs, strict=True)]),
        "unique_pct": 100 * len(set(plain_outputs)) / len(outputs),
        "reference_unique_pct": 100 * len(set(plain_references)) / len(references),
        "top_output_pct": 100 * Counter(plain_outputs).most_common(1)[0][1] / len(outputs),
        "length_ratio": length_ratio(references, outputs),
        "length_sd_ratio": length_sd_ratio(references, outputs),
        "empty_pct": _pct([not o for o in plain_outputs]),
        "unfinished_pct": _pct([not f for f in finished]),
        "repetition_pct": _pct([repeats(o, r) for r, o in zip(references, outputs, strict=True)]),
        "examples": len(references),
    }


def plugin_metrics(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """Key → value of every figure with a `measure` of its own; None if that fails or returns no number."""
    return {each.key: _measured(each, outputs, references) for each in figures().values() if each.measure}


def _measured(figure: Figure, outputs: Sequence[str], references: Sequence[str]) -> float | None:
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


def plain(text: str) -> str:
    """A text normalised for exact comparison: Unicode NFC, single spaces, none at the ends.

    Texts of several lines, such as code, keep their lines and indents.
    """
    lines = [line for line in _LINE_END.split(unicodedata.normalize("NFC", text)) if line.strip()]
    indents = [line[: len(line) - len(line.lstrip())] if len(lines) > 1 else "" for line in lines]
    return "\n".join(indent + " ".join(line.split()) for indent, line in zip(indents, lines, strict=True))


def words(text: str) -> list[str]:
    """Words between spaces; single characters in scripts written without spaces."""
    return _WORD.findall(text)


def bleu_tokenizer(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for these references: `zh` if mostly Han, `char` if mostly another unspaced script.

    Otherwise `13a`, sacrebleu's default. The signature names the tokenizer.
    """
    text = "".join("".join(r.split()) for r in references)
    if 2 * len(_HAN_LETTER.findall(text)) > len(text):
        return "zh"
    return "char" if 2 * len(_UNSPACED_LETTER.findall(text)) > len(text) else "13a"


def bleu_score(references: Sequence[str], outputs: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU (0..100, cased) and its sacrebleu signature.

    BLEU is 0 if no output has four tokens, even if every output is exact: see `verdict.bleu_applies`.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=bleu_tokenizer(references), force=True)  # force: no log line about tokenised periods
    score = metric.corpus_score(list(outputs), [list(references)]).score
    return min(100.0, float(score)), str(metric.get_signature())


def chrf_score(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Corpus chrF2 (0..100) with sacrebleu's defaults: character 6-grams, recall weighted twice."""
    from sacrebleu.metrics.chrf import CHRF

    return min(100.0, float(CHRF().corpus_score(list(outputs), [list(references)]).score))


def rouge_l(references: Sequence[str], outputs: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words, 0..100, averaged over examples (Lin 2004; rouge-score).

    Case and punctuation are ignored, as in rouge-score, but letters of every script count, and those of unspaced
    scripts are words. On English text it equals rouge-score's `rougeL` without stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_LowerWords())
    found = [scorer.score(r, o)["rougeL"].fmeasure for r, o in zip(references, outputs, strict=True)]
    return 100 * sum(found) / len(found)


# Figures that are measured only for tasks with this metric.
ON_REQUEST = {"rouge_l": rouge_l}


class _LowerWords:
    """A tokenizer for rouge-score: lower-case words of any script."""

    def tokenize(self, text: str) -> list[str]:
        return words(_NO_LETTERS.sub(" ", text.lower()))


def word_error_rate(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Substitutions, deletions and insertions per reference word (jiwer's alignment), as a share: 0.15, not 15.

    Can exceed 1. Characters count as words in unspaced scripts. If every reference is empty: number of insertions.
    """
    import jiwer

    found = jiwer.process_words([" ".join(words(r)) for r in references], [" ".join(words(o)) for o in outputs])
    errors = found.substitutions + found.deletions + found.insertions
    return errors / max(1, found.substitutions + found.deletions + found.hits)


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
