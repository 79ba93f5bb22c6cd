"""WER, CER, ROUGE-L and exact match with the methods of sacreBLEU's metrics, so that its paired tests take them.

jiwer and rouge-score count. A reference that is one of several is chosen as sacreBLEU's chrF and TER do: per example
the one that is best for the output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jiwer
from sacrebleu.metrics.base import Metric, Score, Signature

from sourcewise.metrics.texts import plain, words

_NO_LETTERS = re.compile(r"[^\w]|_")
_LONGEST_UNSTEMMED = 3  # characters of a word that rouge-score does not stem

Columns = Sequence[Sequence[Any]]  # texts, or None where an example has fewer references


class _Signature(Signature):
    """sacreBLEU's form, with the options of a metric and the version of what counts."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(args)
        self.info.update(args["options"] | {"version": args["counted_by"]})


class _Adapted(Metric):
    """Statistics of an example are two numbers; the score is `scale` times the ratio of their sums."""

    _SIGNATURE_TYPE = _Signature
    name = ""
    scale = 1.0

    def __init__(self, references: Columns, options: dict[str, str], counted_by: str) -> None:
        super().__init__()
        self.options, self.counted_by = options, counted_by
        self._ref_cache = self._cache_references(references)

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"references": list(refs)}

    def _aggregate_and_compute(self, stats: Sequence[Sequence[float]]) -> Score:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])

    def _compute_score_from_stats(self, stats: Sequence[float]) -> Score:
        return Score(self.name, self.scale * stats[0] / (stats[1] or 1))


class WordErrors(_Adapted):
    """WER: jiwer's errors per reference word, as a share. If all references are empty: the number of insertions."""

    name = "WER"

    def __init__(self, references: Columns, lowercase: bool, characters: bool) -> None:
        self._lowercase, self._characters = lowercase, characters
        options = {"case": "lc" if lowercase else "mixed", "words": "characters" if characters else "spaces"}
        super().__init__(references, options, f"jiwer-{version('jiwer')}")

    def _preprocess_segment(self, sent: str) -> str:
        cased = sent.lower() if self._lowercase else sent
        return " ".join(words(cased)) if self._characters else cased

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        found = [self._counted(reference, hypothesis) for reference in ref_kwargs["references"]]
        return min(found, key=lambda counted: (counted[0] / (counted[1] or 1), counted[0]))

    def _counted(self, reference: str, hypothesis: str) -> list[float]:
        """[errors, words of the reference]."""
        return _errors(jiwer.process_words(reference, hypothesis))


class CharacterErrors(WordErrors):
    """CER: jiwer's errors per character of the reference, spaces within it included, as a share."""

    name = "CER"

    def __init__(self, references: Columns, lowercase: bool, characters: bool = False) -> None:
        super().__init__(references, lowercase, False)
        del self.options["words"]

    def _counted(self, reference: str, hypothesis: str) -> list[float]:
        return _errors(jiwer.process_characters(reference, hypothesis))


class RougeL(_Adapted):
    """F1 of the longest common subsequence of words by rouge-score, 0..100, averaged over examples.

    Case and punctuation are ignored, as in rouge-score, but letters of every script count, and those of unspaced
    scripts are words. On English text it equals rouge-score's `rougeL`.
    """

    name = "ROUGE-L"
    scale = 100.0

    def __init__(self, references: Columns, stem: bool) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(["rougeL"], tokenizer=_LowerWords(stem))
        options = {"stem": "yes" if stem else "no", "letters": "all"}
        super().__init__(references, options, f"rouge_score-{version('rouge-score')}")

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        return [float(self._scorer.score_multi(ref_kwargs["references"], hypothesis)["rougeL"].fmeasure), 1.0]


class Exact(_Adapted):
    """Outputs equal to any of their references, in percent; Unicode forms and numbers of spaces do not matter."""

    name = "exact"
    scale = 100.0

    def __init__(self, references: Columns, lowercase: bool) -> None:
        self._lowercase = lowercase
        options = {"case": "lc" if lowercase else "mixed", "norm": "nfc"}
        super().__init__(references, options, _sourcewise())

    def _preprocess_segment(self, sent: str) -> str:
        return plain(sent.lower() if self._lowercase else sent)

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        return [float(hypothesis in ref_kwargs["references"]), 1.0]


class PerExample(_Adapted):
    """The mean of scores that another program counted; a `Scorer` has to know them."""

    def __init__(self, name: str, options: dict[str, str]) -> None:
        super().__init__([], options, options["version"])
        self.name, self.num_refs = name, 1

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[float]:
        raise LookupError(f"{self.name}: not counted for {hypothesis[:80]!r}")


class _LowerWords:
    """A tokenizer for rouge-score: lower-case words of any script, stemmed as rouge-score does where asked for."""

    def __init__(self, stem: bool) -> None:
        self._stem = stem

    @cached_property
    def _stemmer(self) -> Any:
        from nltk.stem.porter import PorterStemmer

        return PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        found = words(_NO_LETTERS.sub(" ", text.lower()))
        if not self._stem:
            return found
        return [self._stemmer.stem(word) if len(word) > _LONGEST_UNSTEMMED else word for word in found]


def _sourcewise() -> str:
    """sourcewise-VERSION, where it is installed and not only on the path."""
    try:
        return f"sourcewise-{version('sourcewise')}"
    except PackageNotFoundError:
        return "sourcewise"


def _errors(found: Any) -> list[float]:
    """[errors, words (or characters) of the reference] of jiwer's result."""
    errors = found.substitutions + found.deletions + found.insertions
    return [float(errors), float(found.substitutions + found.deletions + found.hits)]
