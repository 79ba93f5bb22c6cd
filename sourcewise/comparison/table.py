"""The table of a comparison: the figures of each variant with intervals, and which differences are beyond chance.

Two things make a figure of one training uncertain: the seed and the choice of examples. A difference counts only if
neither explains it: zero must lie outside of Welch's interval over seeds and outside of the paired bootstrap interval
over examples (Koehn 2004), in which both sides are measured on the same drawn examples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sourcewise.baselines.measure import ALWAYS as SCORED
from sourcewise.baselines.measure import NAMES
from sourcewise.comparison.finished import Finished
from sourcewise.comparison.intervals import mean_interval, welch_interval
from sourcewise.comparison.plan import Comparison
from sourcewise.figures import figures, shown
from sourcewise.metrics.significance import percentiles

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of a variant: its values by seed."""

    values: list[float]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean over seeds (Student's t); None with one seed."""
        return mean_interval(self.values)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of one variant minus that of another."""

    mean: float
    seeds: Interval | None  # 95 % over seeds (Welch); None: one side has one seed
    examples: Interval | None  # 95 % over examples (paired bootstrap); None: different examples, or no such figure

    @property
    def sign(self) -> int:
        """1 or −1 if zero lies outside of the known intervals, over seeds and examples; else 0: it may be chance."""
        if self.seeds is None:
            return 0
        known = [self.seeds, *([self.examples] if self.examples else [])]
        return 1 if all(low > 0 for low, _ in known) else -1 if all(high < 0 for _, high in known) else 0


@dataclass
class Line:
    """One variant in the table."""

    variant: str
    finished: list[Finished]
    missing: int  # trainings that are not finished

    @property
    def figures(self) -> dict[str, Estimate]:
        """Key of a figure → its estimate, for the figures that every training of the variant has."""
        values = {each.key: [_number(f.metrics.get(each.key)) for f in self.finished] for each in shown("table")}
        return {name: Estimate(each) for name, each in values.items() if each and all(map(math.isfinite, each))}

    @property
    def costs(self) -> dict[str, float | None]:
        """Parameters of the network, tokens per second (median over seeds), minutes of training (mean), once known."""
        done = self.finished
        return {
            "parameters": done[0].parameters if done else None,
            "tokens_per_s": float(np.median([f.tokens_per_s for f in done])) if done else None,
            "minutes": float(np.mean([f.minutes for f in done])) if done else None,
        }

    @property
    def verdict(self) -> str:
        """The verdicts of the trainings in words, with their source use unless all are `read`."""
        levels = Counter(f.verdict.level for f in self.finished)
        uses = Counter(f.verdict.source_use for f in self.finished)
        text = ", ".join(level if len(levels) == 1 else f"{count} {level}" for level, count in levels.most_common())
        if set(uses) <= {"read"}:
            return text
        return f"{text}; source " + ", ".join(u if len(uses) == 1 else f"{n} {u}" for u, n in uses.most_common())


def difference(figure: str, one: Line, other: Line) -> Difference | None:
    """A figure of `one` minus that of `other`; None if either lacks it."""
    ours, theirs = one.figures.get(figure), other.figures.get(figure)
    if ours is None or theirs is None:
        return None
    return Difference(
        ours.mean - theirs.mean, welch_interval(ours.values, theirs.values), _over_examples(figure, one, other)
    )


def _over_examples(figure: str, one: Line, other: Line) -> Interval | None:
    """Paired bootstrap interval of the difference of means over seeds; None if the examples differ."""
    everything = [*one.finished, *other.finished]
    paired = all(each.examples == everything[0].examples for each in everything[1:])
    if not paired or not all(figure in each.resampled for each in everything):
        return None
    ours, theirs = (np.mean([f.resampled[figure] for f in side.finished], axis=0) for side in (one, other))
    return percentiles(ours - theirs)


@dataclass
class Table:
    """The table of a comparison; the first line is the baseline of the others."""

    comparison: Comparison
    lines: list[Line]
    failed: dict[str, str]  # training → why it failed

    @classmethod
    def of(cls, comparison: Comparison, finished: Sequence[Finished], failed: dict[str, str]) -> Table:
        """The table of the trainings finished so far."""
        lines = []
        for variant in comparison.variants:
            done = [f for f in finished if f.planned.variant == variant]
            lines.append(Line(variant, done, len(comparison.of(variant)) - len(done)))
        return cls(comparison, lines, failed)

    @property
    def figures(self) -> list[str]:
        """Keys of the figures that at least one line has."""
        return [each.key for each in shown("table") if any(each.key in line.figures for line in self.lines)]

    @property
    def complete(self) -> bool:
        """Whether every training is finished."""
        return not any(line.missing for line in self.lines)

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Variant → figure → difference from the first variant."""
        first, found = self.lines[0], dict[str, dict[str, Difference]]()
        for line in self.lines[1:]:
            each = {figure: difference(figure, line, first) for figure in self.figures}
            found[line.variant] = {figure: d for figure, d in each.items() if d is not None}
        return found

    @cached_property
    def leader(self) -> Line | None:
        """The line with the best mean of the deciding figure."""
        metric = self.comparison.metric
        lines = [line for line in self.lines if metric in line.figures]
        return max(lines, key=lambda line: self._upward * line.figures[metric].mean, default=None)

    @cached_property
    def tied(self) -> list[str]:
        """The variants whose difference from the leader may be chance."""
        metric, leader = self.comparison.metric, self.leader
        if leader is None:
            return []
        others = [line for line in self.lines if line is not leader and metric in line.figures]
        found = [(line.variant, difference(metric, leader, line)) for line in others]
        return [variant for variant, d in found if d is None or d.sign != self._upward]

    @property
    def winner(self) -> str | None:
        """The leader, if it is better than every other variant beyond chance; else None."""
        alone = self.complete and len(self.lines) > 1 and not self.tied
        return self.leader.variant if alone and self.leader is not None else None

    def better(self, variant: str, figure: str) -> int:
        """1: better than the first variant beyond chance, −1: worse, 0: may be chance."""
        found = self.differences.get(variant, {}).get(figure)
        return 0 if found is None else found.sign * figures()[figure].sign

    @property
    def conclusion(self) -> str:
        """The result of the comparison in a sentence."""
        metric, leader = self.comparison.metric, self.leader
        if leader is None:
            return "No training is finished yet."
        if self.winner:
            return f"{self.winner} is best by {metric}, over seeds and over examples."
        if not self.complete:
            return f"So far {leader.variant} leads by {metric}; not all trainings are finished."
        if any(len(line.finished) < 2 for line in self.lines):
            return f"{leader.variant} leads by {metric}; with one seed each, chance is not told from merit."
        if len(self.lines) == 1:
            return "There is nothing to compare it with."
        return f"{leader.variant} leads by {metric}, but cannot be told from {', '.join(self.tied)}."

    @property
    def baselines(self) -> Mapping[str, Any]:
        """The `baselines` of metrics.json of the first finished training; empty if it has none."""
        first = next((f for line in self.lines for f in line.finished), None)
        return (first.metrics.get("baselines") or {}) if first is not None else {}

    @property
    def same_baselines(self) -> bool:
        """Whether all finished trainings have the same baselines: other training data give others."""
        known = [f.metrics.get("baselines") or {} for line in self.lines for f in line.finished]
        scores = [{name: {k: each[name][k] for k in SCORED} for name in NAMES} if each else {} for each in known]
        return all(each == scores[0] for each in scores)

    @property
    def devices(self) -> list[str]:
        """Devices of the trainings; minutes and tokens/s are comparable only if there is one."""
        return sorted({f.device for line in self.lines for f in line.finished})

    @property
    def _upward(self) -> int:
        return figures()[self.comparison.metric].sign


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
