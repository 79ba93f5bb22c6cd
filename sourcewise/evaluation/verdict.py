"""The verdict on an evaluation in one sentence: quality, diversity, source use.

**Quality.** By BLEU: above 10 excellent, 8 to 10 good, 5 to 8 moderate, below 5 failed. Exactly 10 is good, exactly
8 is good, exactly 5 is moderate.

BLEU counts 4-grams. If most references have fewer than four words (ISO dates, labels, single words), it is 0 for
exact outputs, or determined by punctuation. Quality is then the exact match above chance, Cohen's kappa (1960):
(observed - expected) / (1 - expected), where expected is the share of matches with the outputs in random order.
The bands are those of Landis & Koch (1977): above 0.80 excellent, 0.60 to 0.80 good, 0.40 to 0.60 moderate, below
failed (exactly 0.80 and 0.60 are good, exactly 0.40 is moderate). A classifier that always gives the majority label
has kappa 0 whatever its accuracy. Outputs seldom exact but close (chrF more than 0.60 of the way from chance to 100)
are moderate.

**Diversity.** Distinct outputs relative to distinct references: above 70 % good, 50 to 70 % some repetition,
below 50 % mode collapse. Exactly 70 and exactly 50 are some repetition.

**Source use.** The 95 % interval of the source bits: upper end below 0.1 bits: not read; lower end at or above: read;
else uncertain. (The bound is lower if the targets hold little information: `unread_below`.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sourcewise.metrics.counting import chrf_score
from sourcewise.metrics.texts import plain, words

if TYPE_CHECKING:
    from sourcewise.evaluation.results import Evaluation

Quality = Literal["excellent", "good", "moderate", "failed"]
Diversity = Literal["good", "some repetition", "mode collapse"]
SourceUse = Literal["read", "uncertain", "not read", "not measured"]

BLEU_BANDS = (10.0, 8.0, 5.0)
KAPPA_BANDS = (0.80, 0.60, 0.40)
CLOSE_CHRF = 0.60
DIVERSITY_BANDS = (70.0, 50.0)
SOURCE_BITS = 0.1
BLEU_WORDS = 4
JUDGED_BY = ("bleu", "chrf", "exact_match_pct", "unique_pct")  # figures without which there is no verdict

_RANK: tuple[Quality, ...] = ("excellent", "good", "moderate", "failed")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The three judgements, the worst of them as `level`, and all of it in words."""

    level: Quality
    quality: Quality
    diversity: Diversity
    source_use: SourceUse
    text: str

    def to_dict(self) -> dict[str, str]:
        """The verdict as JSON-compatible values."""
        return asdict(self)


def verdict_of(evaluation: Evaluation) -> Verdict | None:
    """The verdict on an evaluation, for `evaluate`, `diagnose` and reports; None without outputs or figures."""
    metrics, references = evaluation.metrics, evaluation.references
    if not references or any(metrics.get(key) is None for key in JUDGED_BY):
        return None
    distinct = 100.0 * len({plain(reference) for reference in references}) / len(references)
    known = {key: value for key, value in metrics.items() if value is not None}
    return judge({"reference_unique_pct": distinct} | known, references, evaluation.outputs)


def judge(metrics: Mapping[str, Any], references: Sequence[str], outputs: Sequence[str]) -> Verdict:
    """The verdict from figures and texts; the bands are documented at the top of this file.

    `metrics` holds what `output_metrics` gives and, where measured, `source_bits`, `source_bits_ci95` and
    `target_tokens`. Some repetition caps the level at moderate; mode collapse or an unread source makes it failed.
    """
    quality, quality_text = _quality(metrics, references, outputs)
    diversity, diversity_text = _diversity(metrics)
    source_use, source_text = _source_use(metrics, references)
    level = quality
    if diversity == "some repetition":
        level = max(level, "moderate", key=_RANK.index)
    if diversity == "mode collapse" or source_use == "not read":
        level = "failed"
    return Verdict(level, quality, diversity, source_use, f"{quality_text}; {diversity_text}; {source_text}.")


def bleu_applies(references: Sequence[str]) -> bool:
    """Whether BLEU is meaningful for a set: at least half of its references have four words or more."""
    return 2 * sum(len(words(r)) >= BLEU_WORDS for r in references) >= len(references) > 0


def bleu_band(bleu: float) -> Quality:
    """The band of a BLEU score (0..100): > 10, 8..10, 5..8, < 5."""
    excellent, good, moderate = BLEU_BANDS
    return "excellent" if bleu > excellent else "good" if bleu >= good else "moderate" if bleu >= moderate else "failed"


def diversity_band(share_pct: float) -> Diversity:
    """The band of distinct outputs in percent of distinct references: > 70, 50..70, < 50."""
    good, repetition = DIVERSITY_BANDS
    return "good" if share_pct > good else "some repetition" if share_pct >= repetition else "mode collapse"


def kappa_band(kappa: float) -> Quality:
    """The band of a kappa (Landis & Koch 1977): > 0.8, 0.6..0.8, 0.4..0.6, < 0.4."""
    excellent, good, moderate = KAPPA_BANDS
    return (
        "excellent" if kappa > excellent else "good" if kappa >= good else "moderate" if kappa >= moderate else "failed"
    )


def kappa(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Exact matches above chance (Cohen 1960): 1 at best, about 0 for outputs in random order.

    If all references are equal, it is the share of exact matches.
    """
    expected_texts, given_texts = [plain(r) for r in references], [plain(o) for o in outputs]
    size = len(expected_texts)
    observed = sum(r == o for r, o in zip(expected_texts, given_texts, strict=True)) / size
    of_references, of_outputs = Counter(expected_texts), Counter(given_texts)
    if len(of_references) == 1:
        return observed
    chance = sum(count * of_outputs[text] for text, count in of_references.items()) / size**2
    return (observed - chance) / (1 - chance)


def unread_below(references: Sequence[str], target_tokens: int) -> float:
    """The source bits per target token below which a source counts as unread: 0.1, or less for predictable targets.

    Repetitive targets (fewer than half distinct) may hold less than 0.1 bits per token: with 99 % of one label they
    hold 0.08 bits per example. The bound is then half of the targets' empirical entropy per token, if that is less; 0
    if all targets are equal, so that nothing can be read.
    """
    counts = np.array(list(Counter(plain(r) for r in references).values()), dtype=np.float64)
    if not len(counts) or 2 * len(counts) >= counts.sum() > 1 or not target_tokens:
        return SOURCE_BITS
    shares = counts / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    return min(SOURCE_BITS, 0.5 * entropy * counts.sum() / target_tokens)


def source_use(metrics: Mapping[str, Any], references: Sequence[str]) -> SourceUse:
    """Whether the 95 % interval of the source bits lies below, across or above `unread_below`."""
    low_high = metrics.get("source_bits_ci95")
    if not low_high or any(end is None or not math.isfinite(end) for end in low_high):
        return "not measured"
    bound = unread_below(references, int(metrics.get("target_tokens") or 0))
    if bound <= 0:
        return "uncertain"
    low, high = low_high
    return "not read" if high < bound else "read" if low >= bound else "uncertain"


def _quality(metrics: Mapping[str, Any], references: Sequence[str], outputs: Sequence[str]) -> tuple[Quality, str]:
    if bleu_applies(references):
        quality = bleu_band(metrics["bleu"])
        return quality, f"BLEU {metrics['bleu']:.1f}: {quality}"
    agreement = kappa(references, outputs)
    quality = kappa_band(agreement)
    text = f"{metrics['exact_match_pct']:.1f} % exactly right"
    if len({plain(r) for r in references}) > 1:
        text += f", kappa {agreement:.2f}"
    if quality == "failed" and _chrf_above_chance(metrics["chrf"], references, outputs) > CLOSE_CHRF:
        quality, text = "moderate", f"{text}, but close (chrF {metrics['chrf']:.0f})"
    return quality, f"{text}: {quality} (BLEU does not apply: most references have fewer than {BLEU_WORDS} words)"


def _chrf_above_chance(chrf: float, references: Sequence[str], outputs: Sequence[str]) -> float:
    """chrF on a scale from 0 (the outputs in random order) to 1 (chrF 100)."""
    dealt = np.random.default_rng(0).permutation(len(references))
    chance = chrf_score([references[i] for i in dealt], outputs) if len(references) > 1 else 0.0
    return (chrf - chance) / (100 - chance) if chance < 100 else 0.0


def _diversity(metrics: Mapping[str, Any]) -> tuple[Diversity, str]:
    share = 100 * metrics["unique_pct"] / metrics["reference_unique_pct"]
    diversity = diversity_band(share)
    return diversity, f"distinct outputs {share:.0f} % of the references' own: {diversity}"


def _source_use(metrics: Mapping[str, Any], references: Sequence[str]) -> tuple[SourceUse, str]:
    use = source_use(metrics, references)
    if use == "not measured":
        return use, "source bits: not measured"
    low, high = metrics["source_bits_ci95"]
    reading = {
        "read": "the decoder reads its source",
        "uncertain": "too near zero to tell whether the decoder reads its source",
        "not read": "the decoder does not read its source",
    }[use]
    if unread_below(references, int(metrics.get("target_tokens") or 0)) <= 0:
        reading = "the targets are all the same, there is nothing to read"
    return use, f"source bits {metrics['source_bits']:.2f} [{low:.2f}, {high:.2f}]: {reading}"
