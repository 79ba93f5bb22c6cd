"""Minimum Bayes risk: of several outputs the one that is most like the others (Kumar & Byrne 2004; Eikema & Aziz 2020).

The utility of a candidate is its mean score against all candidates as references: chrF or BLEU of the sentence, as
sacreBLEU counts them, or COMET.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.generation.rules import ReadSource
from sourcewise.generation.sampling import Hypothesis

LOCAL = ("chrf", "bleu")  # scores that this process counts


def least_risk(found: list[Hypothesis], score: str, read: ReadSource | None) -> list[Hypothesis]:
    """The candidates of one source with their utility, best first; equal ones keep their order."""
    if read is None or read.tokenizer is None:
        raise ValueError("mbr asks for a tokenizer")
    texts = read.tokenizer.decode_batch([each.said for each in found])
    return ordered(found, utilities(texts, score))


def least_risk_by_comet(lists: list[list[Hypothesis]], sources: object) -> list[list[Hypothesis]]:
    """The same by COMET, which runs as another program, once for all. Raises RequestError."""
    from sourcewise.metrics.comet import comet_scores

    if not isinstance(sources, ExampleSet) or sources.dataset.dims:
        raise RequestError("generation: mbr comet reads the texts of the sources; features and memories have none")
    origins, references, candidates = list[str](), list[str](), list[str]()
    texts = [sources.tokenizer.decode_batch([each.said for each in found]) for found in lists]
    for example, several in zip(sources.dataset, texts, strict=True):
        pairs = [(text, reference) for text in several for reference in several]
        origins += [example.source] * len(pairs)
        candidates += [text for text, _ in pairs]
        references += [reference for _, reference in pairs]
    scores = iter(comet_scores(origins, references, candidates))
    gains = [[float(np.mean([next(scores) for _ in several])) for _ in several] for several in texts]
    return [ordered(found, gain) for found, gain in zip(lists, gains, strict=True)]


def ordered(found: list[Hypothesis], gains: Sequence[float]) -> list[Hypothesis]:
    """The same with these utilities, best first."""
    for each, gain in zip(found, gains, strict=True):
        each.utility = float(gain)
    return [found[i] for i in np.argsort([-gain for gain in gains], kind="stable")]


def utilities(texts: Sequence[str], score: str) -> list[float]:
    """The mean score (0..100) of each text against all of them; equal texts are scored once and counted as often."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    weights = np.zeros(len(distinct))
    for text in texts:
        weights[distinct[text]] += 1 / len(texts)
    names = list(distinct)
    table = np.array([[_score(score, a, b) for b in names] for a in names])
    gains = table @ weights
    return [float(gains[distinct[text]]) for text in texts]


def _score(score: str, text: str, reference: str) -> float:
    from sacrebleu import sentence_bleu, sentence_chrf

    if text == reference:
        return 100.0
    if score == "chrf":
        return float(sentence_chrf(text, [reference]).score)
    return float(sentence_bleu(text, [reference]).score)
