"""Scores that sacrebleu, jiwer and rouge-score count, with their signatures.

For all text but that of scripts without spaces the figures equal those of sacrebleu and jiwer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sourcewise.metrics.texts import HAN_LETTER, UNSPACED_LETTER, words

_NO_LETTERS = re.compile(r"[^\w]|_")


def bleu_tokenizer(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for these references: `zh` if mostly Han, `char` if mostly another unspaced script.

    Otherwise `13a`, sacrebleu's default. The signature names the tokenizer.
    """
    text = "".join("".join(r.split()) for r in references)
    if 2 * len(HAN_LETTER.findall(text)) > len(text):
        return "zh"
    return "char" if 2 * len(UNSPACED_LETTER.findall(text)) > len(text) else "13a"


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
