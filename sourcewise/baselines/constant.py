"""The best constant: one training target that is given for every source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sourcewise.metrics.counting import as_references
from sourcewise.metrics.measure import Measure
from sourcewise.metrics.texts import words

SAMPLE, SAMPLE_WORDS = 4000, 100_000  # training targets that candidates are compared with, by counts alone
MEASURED_ON, MEASURED_WORDS = 500, 10_000  # training targets that the best candidates are measured on
FEWEST = 30  # of them, however long they are
FREQUENT, LIKELY = 4, 8  # candidates that are measured: the commonest texts, and the best by counts
ORDERS = {"bleu": 4, "wer": 1, "chrf": 6}

Units = Callable[[str], Sequence[str]]
Gram = tuple[int, tuple[str, ...], int]  # order, n-gram, how many times before in this text


def best_constants(targets: Sequence[str], measure: Measure, count: int = 2) -> list[str]:
    """The targets that score best when one of them is given for all others, the best first; fewer if there are fewer.

    The score is that of the metric's own library, on at most `MEASURED_ON` targets; which ones are measured is found by
    the n-grams they share with the others.
    """
    metric, common = measure.key, Counter(targets)
    if len(common) <= count:
        return [text for text, _ in common.most_common()]
    sample = spread(targets, SAMPLE, SAMPLE_WORDS)
    candidates = dict.fromkeys(text for text, _ in common.most_common(FREQUENT))
    if metric != "exact_match_pct":
        for kind in (metric,) if metric in ("bleu", "chrf", "wer") else ("bleu", "wer"):
            candidates |= dict.fromkeys(_likely(sample, kind))
    if metric == "exact_match_pct":  # counting is enough, and is exact
        return list(candidates)[:count]
    references = as_references(spread(targets, MEASURED_ON, MEASURED_WORDS))
    texts = list(candidates)
    best = measure.best_first(references, [[text] * len(references) for text in texts])
    return [texts[i] for i in best[:count]]


def spread(texts: Sequence[str], most: int, most_words: int) -> list[str]:
    """At most `most` of the texts, evenly spread, and fewer if they are long: some `most_words` in all."""
    some = texts[:: max(1, len(texts) // FEWEST)]
    long = max(1.0, sum(len(words(text)) for text in some) / len(some))
    count = min(most, max(FEWEST, int(most_words / long)))
    places = np.linspace(0, len(texts) - 1, min(len(texts), count)).astype(int)
    return [texts[i] for i in places]


def _likely(sample: Sequence[str], kind: str) -> list[str]:
    """The texts of a sample that share most with all of it, by BLEU, chrF or word errors of their counts."""
    units: Units = words if kind != "chrf" else lambda text: "".join(text.split())
    sample = spread(sample, SAMPLE // 4, SAMPLE_WORDS // 4) if kind == "chrf" else sample
    grams = {text: _grams(units(text), ORDERS[kind]) for text in dict.fromkeys(sample)}
    shared: Counter[Gram] = Counter()
    for text in sample:
        shared.update(grams[text])
    sizes = np.array([len(units(text)) for text in sample])
    rated = {text: RATED[kind](len(units(text)), _matches(found, shared, kind), sizes) for text, found in grams.items()}
    return sorted(rated, key=lambda text: -rated[text])[:LIKELY]


def _grams(units: Sequence[str], most: int) -> list[Gram]:
    """The n-grams of a text, told apart where they repeat: what two texts share is then what both lists hold."""
    found: list[Gram] = []
    for order in range(1, most + 1):
        before: Counter[tuple[str, ...]] = Counter()
        for i in range(len(units) - order + 1):
            gram = tuple(units[i : i + order])
            found.append((order, gram, before[gram]))
            before[gram] += 1
    return found


def _matches(grams: Sequence[Gram], shared: Counter[Gram], kind: str) -> np.ndarray:
    """(orders,) n-grams that a text, given for all of the sample, has in common with it."""
    matches = np.zeros(ORDERS[kind])
    for gram in grams:
        matches[gram[0] - 1] += shared[gram]
    return matches


def _by_word_errors(size: int, matches: np.ndarray, sizes: np.ndarray) -> float:
    """Words that are right minus words that cannot be, whatever their order."""
    return float(matches[0] - np.maximum(sizes, size).sum())


def _by_bleu(size: int, matches: np.ndarray, sizes: np.ndarray) -> float:
    """The logarithm of BLEU; a text without a 4-gram is below all that have one."""
    given = len(sizes) * (size - np.arange(len(matches)))
    if given[-1] <= 0:
        return float(matches[0]) - 1e9
    brevity = min(0.0, 1 - sizes.sum() / given[0])
    return float(np.log(np.maximum(matches, 0.5) / given).mean() + brevity)


def _by_chrf(size: int, matches: np.ndarray, sizes: np.ndarray) -> float:
    """chrF2, precision and recall averaged over the orders that both sides have."""
    orders = np.arange(len(matches))
    given = len(sizes) * np.maximum(size - orders, 0)
    wanted = np.maximum(sizes[:, None] - orders, 0).sum(0)
    both = (given > 0) & (wanted > 0)
    if not both.any():
        return 0.0
    precision, recall = (matches[both] / given[both]).mean(), (matches[both] / wanted[both]).mean()
    return float(5 * precision * recall / max(4 * precision + recall, 1e-9))


RATED = {"wer": _by_word_errors, "bleu": _by_bleu, "chrf": _by_chrf}
