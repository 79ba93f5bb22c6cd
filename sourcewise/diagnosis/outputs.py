"""The outputs of an evaluation beside their references, and what several rules measure of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sourcewise.diagnosis.rule import CannotTell
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.metrics.outputs import output_metrics
from sourcewise.metrics.texts import plain

MIN_EXAMPLES = 8  # below, one example moves every share by more than a threshold
RAMBLING = 1.1  # times the references' characters; outputs that reach the limit with fewer are cut, not endless
Z95 = 1.645  # standard deviations above which a normal variable lies one time in twenty
_FIGURES = ("repetition_pct", "unfinished_pct", "length_ratio", "length_sd_ratio")


class Outputs:
    """An evaluation as the rules see it. All but `evaluation` raises CannotTell where it has too few rows."""

    about = "source use and outputs"
    learned = True

    def __init__(self, evaluation: Evaluation, *, generated: bool = True) -> None:
        self.evaluation, self.generated = evaluation, generated

    def check_generated(self) -> None:
        """Raises CannotTell where the rows have references alone."""
        if not self.generated:
            raise CannotTell("outputs", "none were generated")

    @property
    def rows(self) -> list[Row]:
        """The rows, where they are enough to judge by."""
        self.check_generated()
        rows = self.evaluation.rows
        if len(rows) < MIN_EXAMPLES:
            raise CannotTell("outputs", f"{len(rows)} examples, at least {MIN_EXAMPLES} are needed")
        return rows

    @cached_property
    def sources(self) -> list[str]:
        """Their texts; empty where they are not known."""
        return [plain(row.source) for row in self.rows]

    @cached_property
    def references(self) -> list[str]:
        """As a metric reads them."""
        return [plain(row.reference) for row in self.rows]

    @cached_property
    def outputs(self) -> list[str]:
        """As a metric reads them."""
        return [plain(row.output) for row in self.rows]

    @cached_property
    def figures(self) -> Mapping[str, Any]:
        """The evaluation's metrics, measured where they lack. Rows of a folder do not know whether they finished."""
        metrics = self.evaluation.metrics
        if all(metrics.get(key) is not None for key in _FIGURES):
            return metrics
        known = {key: value for key, value in metrics.items() if value is not None}
        return output_metrics(self.references, self.outputs, [row.finished for row in self.rows]) | known

    @cached_property
    def cut(self) -> list[int]:
        """The rows that reached the length limit. Those read from a folder do not tell: then all, where most did."""
        known = [i for i, row in enumerate(self.rows) if not row.finished]
        return known or (list(range(len(self.rows))) if self.figures["unfinished_pct"] >= 50 else [])

    @cached_property
    def longer(self) -> float:
        """Characters of the cut outputs (of all, if none is) over their references'; a loop need not have spaces."""
        rows = self.cut or range(len(self.rows))
        return sum(len(self.outputs[i]) for i in rows) / max(1, sum(len(self.references[i]) for i in rows))

    @cached_property
    def wanted(self) -> list[str]:
        """The references, cut where the limit cut outputs, so that what it explains is not said of the model.

        Of several references of a source the one that was said, where one was: a model may have its favourite.
        """
        right: defaultdict[str, set[str]] = defaultdict(set)
        for source, reference in zip(self.sources, self.references, strict=True):
            right[source].add(reference)
        rows = zip(self.sources, self.references, self.outputs, strict=True)
        wanted = [output if source and output in right[source] else reference for source, reference, output in rows]
        if self.longer < RAMBLING:
            for i in self.cut:
                wanted[i] = wanted[i][: len(self.outputs[i])].rstrip()
        return wanted


def at_least(percent: float, examples: int) -> float:
    """The lower end of a one-sided 95 % interval of a share of examples, in percent (Wilson 1927)."""
    share, spread = percent / 100, Z95**2 / examples
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4)
    return 100 * (share + spread / 2 - half) / (1 + spread)


def share_of(flags: Iterable[bool]) -> float:
    """Percent of the flags that are true."""
    values = list(flags)
    return 100 * sum(values) / len(values)


def top_share(texts: Sequence[str]) -> float:
    """Percent of the texts that are the commonest one."""
    return 100 * Counter(texts).most_common(1)[0][1] / len(texts)


def shown(text: str, longest: int = 60) -> str:
    """A text in quotes, what is longer than `longest` left out."""
    return '"' + (text if len(text) <= longest else text[: longest - 1] + "…") + '"'
