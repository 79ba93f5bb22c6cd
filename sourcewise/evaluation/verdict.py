"""The verdict on an evaluation in one sentence: its place among the baselines, quality, diversity, source use.

**Level.** By the set's own metric (`data.*.metric`; by default BLEU, or the exact match where most references have
fewer than four words), each difference by a paired bootstrap over examples (95 %):

- failed: not above the best constant output, or not above random targets of the right length;
- below copying: above these, not above the target of the nearest training source;
- above copying;
- undecided: there are no baselines, or even perfect outputs could not be told from one (a handful of examples, targets
  that are all the same, an evaluation on the training data).

Mode collapse and an unread source are failed, wherever the score lies. Without baselines, so is a failed band.

**Band.** By BLEU: above 10 excellent, 8 to 10 good, 5 to 8 moderate, below 5 failed. Exactly 10 is good, exactly
8 is good, exactly 5 is moderate. The bands of all other metrics are those of Landis & Koch (1977): above 0.80
excellent, 0.60 to 0.80 good, 0.40 to 0.60 moderate, below failed (exactly 0.80 and 0.60 are good, exactly 0.40 is
moderate), on a scale from 0 to 1 where higher is better: a word error rate of 0.53 is 0.47.

The exact match is taken above chance, as Cohen's kappa (1960): (observed - expected) / (1 - expected), where expected
is the share of matches with the outputs in random order. A classifier that always gives the majority label has kappa 0
whatever its accuracy. Outputs seldom exact but close (chrF more than 0.60 of the way from chance to 100) are moderate.

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

from sourcewise.figures import Figure, figures
from sourcewise.metrics.counting import References, as_references, chrf_score
from sourcewise.metrics.texts import plain, words

if TYPE_CHECKING:
    from sourcewise.evaluation.results import Evaluation

Level = Literal["above copying", "undecided", "below copying", "failed"]
Band = Literal["excellent", "good", "moderate", "failed"]
Diversity = Literal["good", "some repetition", "mode collapse"]
SourceUse = Literal["read", "uncertain", "not read", "not measured"]

BLEU_BANDS = (10.0, 8.0, 5.0)
SHARE_BANDS = (0.80, 0.60, 0.40)
CLOSE_CHRF = 0.60
DIVERSITY_BANDS = (70.0, 50.0)
SOURCE_BITS = 0.1
BLEU_WORDS = 4
JUDGED_BY = ("bleu", "chrf", "exact_match_pct", "unique_pct")  # figures without which there is no verdict

LEVELS: tuple[Level, ...] = ("above copying", "undecided", "below copying", "failed")  # the worst last
POOR: tuple[Level, ...] = ("below copying", "failed")

_ABOVE = {
    "constant": "one output for every source",
    "length": "random training targets of the right length",
    "copy": "copying the target of the nearest training source",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The level, what it is made of, and all of it in words."""

    level: Level
    band: Band
    diversity: Diversity
    source_use: SourceUse
    text: str

    def to_dict(self) -> dict[str, str]:
        """The verdict as JSON-compatible values."""
        return asdict(self)


def verdict_of(evaluation: Evaluation) -> Verdict | None:
    """The verdict on an evaluation, for `evaluate`, `diagnose` and reports; None without outputs or figures."""
    metrics, references = evaluation.metrics, [row.references for row in evaluation.rows]
    if not references or any(metrics.get(key) is None for key in JUDGED_BY):
        return None
    distinct = 100.0 * len({plain(each[0]) for each in references}) / len(references)
    known = {key: value for key, value in metrics.items() if value is not None}
    return judge({"reference_unique_pct": distinct} | known, references, evaluation.outputs)


def judge(metrics: Mapping[str, Any], references: Sequence[str] | References, outputs: Sequence[str]) -> Verdict:
    """The verdict from figures and texts; levels and bands are documented at the top of this file.

    `metrics` holds what `output_metrics` gives and, where measured, `judged_by`, `baselines`, `tasks`, `source_bits`,
    `source_bits_ci95` and `target_tokens`. Of several references of an example each is right.
    """
    several = as_references(references)
    first = [each[0] for each in several]
    metric = judging_metric(first, metrics.get("judged_by"))
    place, place_text = _place(metrics, metric)
    band, band_text = _band(metric, metrics, several, outputs)
    diversity, diversity_text = _diversity(metrics)
    source_use, source_text = _source_use(metrics, first)
    bad = diversity == "mode collapse" or source_use == "not read"
    level: Level = "failed" if bad or ("baselines" not in metrics and band == "failed") else place
    return Verdict(level, band, diversity, source_use, f"{place_text}; {band_text}; {diversity_text}; {source_text}.")


def judging_metric(references: Sequence[str], own: str | None = None) -> str:
    """The figure that judges a set: its own, else BLEU, or the exact match where BLEU does not apply."""
    if own in figures():
        return str(own)
    return "bleu" if bleu_applies(references) else "exact_match_pct"


def _place(metrics: Mapping[str, Any], metric: str) -> tuple[Level, str]:
    """Where a score lies among the baselines; of a mixture, where that task lies which is worst off."""
    tasks: Mapping[str, Any] = metrics.get("tasks") or {}
    of_tasks = {str(name): each for name, each in tasks.items() if each.get("baselines")}
    if of_tasks:
        judged = {name: among(each["baselines"]) for name, each in of_tasks.items()}
        worst = max(judged, key=lambda name: LEVELS.index(judged[name][0]))
        return judged[worst][0], f"{worst}: {judged[worst][1]}"
    baselines = metrics.get("baselines")
    return among(baselines) if baselines else ("undecided", "no baselines to hold it against")


def among(baselines: Mapping[str, Any]) -> tuple[Level, str]:
    """The level by the `baselines` of metrics.json alone, and why."""
    figure = figures().get(str(baselines["metric"])) or Figure(str(baselines["metric"]), str(baselines["metric"]))
    for name in ("constant", "length", "copy"):
        found = baselines.get(name)
        if found is None:
            return "undecided", "above a constant and random targets of the right length; sources are not known"
        if found.get("difference") is None:
            return "undecided", f"{figure.label} could not be measured"
        if found["difference_ci95"][0] > 0:
            continue
        said = f"{_ABOVE[name]} ({_gained(figure, found)})"
        if not found["can_tell"] and found["difference"] >= 0:
            return "undecided", f"these examples cannot tell good outputs from {said}"
        return "below copying" if name == "copy" else "failed", f"not above {said}"
    return "above copying", f"above {_ABOVE['copy']} ({_gained(figure, baselines['copy'])})"


def _gained(figure: Figure, found: Mapping[str, Any]) -> str:
    """A baseline's score, and what outputs are better by, with its interval."""
    low, high = found["difference_ci95"]
    score = figure.said("task", found[figure.key])
    number = figure.number.replace("{:", "{:+")
    return f"{score}, {number.format(found['difference'])} [{number.format(low)}, {number.format(high)}]"


def bleu_applies(references: Sequence[str]) -> bool:
    """Whether BLEU is meaningful for a set: at least half of its references have four words or more."""
    return 2 * sum(len(words(r)) >= BLEU_WORDS for r in references) >= len(references) > 0


def bleu_band(bleu: float) -> Band:
    """The band of a BLEU score (0..100): > 10, 8..10, 5..8, < 5."""
    excellent, good, moderate = BLEU_BANDS
    return "excellent" if bleu > excellent else "good" if bleu >= good else "moderate" if bleu >= moderate else "failed"


def diversity_band(share_pct: float) -> Diversity:
    """The band of distinct outputs in percent of distinct references: > 70, 50..70, < 50."""
    good, repetition = DIVERSITY_BANDS
    return "good" if share_pct > good else "some repetition" if share_pct >= repetition else "mode collapse"


def share_band(share: float) -> Band:
    """The band of a kappa, or of a metric from 0 to 1 (Landis & Koch 1977): > 0.8, 0.6..0.8, 0.4..0.6, < 0.4."""
    excellent, good, moderate = SHARE_BANDS
    return (
        "excellent" if share > excellent else "good" if share >= good else "moderate" if share >= moderate else "failed"
    )


def kappa(references: Sequence[str] | References, outputs: Sequence[str], lowercase: bool = False) -> float:
    """Exact matches above chance (Cohen 1960): 1 at best, about 0 for outputs in random order.

    Of several references of an example each is right. If those of all examples are equal, it is the share of exact
    matches.
    """

    def said(text: str) -> str:
        return plain(text).lower() if lowercase else plain(text)

    right = [frozenset(said(text) for text in each) for each in as_references(references)]
    given = [said(text) for text in outputs]
    observed = sum(text in each for text, each in zip(given, right, strict=True)) / len(right)
    if len(set(right)) == 1:
        return observed
    of_outputs = Counter(given)
    chance = sum(of_outputs[text] for each in right for text in each) / len(right) ** 2
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


def _band(metric: str, metrics: Mapping[str, Any], references: References, outputs: Sequence[str]) -> tuple[Band, str]:
    if metric == "exact_match_pct":
        return _exact_band(metrics, references, outputs)
    value = metrics.get(metric, metrics.get("baselines", {}).get("outputs", {}).get(metric))
    figure = figures()[metric]
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "failed", f"{figure.label}: not measured"
    band = bleu_band(value) if metric == "bleu" else share_band(figure.points(value) / 100)
    return band, f"{figure.said('task', value)}: {band}"


def _exact_band(metrics: Mapping[str, Any], references: References, outputs: Sequence[str]) -> tuple[Band, str]:
    agreement = kappa(references, outputs, "case:lc" in metrics.get("exact_match_pct_signature", ""))
    band = share_band(agreement)
    text = f"{metrics['exact_match_pct']:.1f} % exactly right"
    if len({plain(each[0]) for each in references}) > 1:
        text += f", kappa {agreement:.2f}"
    if band == "failed" and _chrf_above_chance(metrics["chrf"], references, outputs) > CLOSE_CHRF:
        band, text = "moderate", f"{text}, but close (chrF {metrics['chrf']:.0f})"
    if not bleu_applies([each[0] for each in references]):
        return band, f"{text}: {band} (BLEU does not apply: most references have fewer than {BLEU_WORDS} words)"
    return band, f"{text}: {band}"


def _chrf_above_chance(chrf: float, references: References, outputs: Sequence[str]) -> float:
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
