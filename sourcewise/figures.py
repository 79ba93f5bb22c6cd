"""The table of figures: name, format, direction and places of every number of an evaluation or a log line.

Recipes and `evaluate --require` accept the names in this table; trainings and comparisons read the direction from it,
and every table and page the label, the format and whether the figure is shown there. Another package adds a figure by
an entry point of the group `sourcewise.metrics` that names a `Figure` with a `measure`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from sourcewise.runtime.plugins import plugins

Measure = Callable[[Sequence[str], Sequence[str]], float]  # (hypotheses, references) → the figure
Place = Literal["tile", "course", "task", "progress", "table", "brief table"]
Use = Literal["tasks", "runs"]

GROUP = "sourcewise.metrics"
PERCENT = (0.0, 100.0)

# The places: tiles at the head of a report, its table of evaluations (course), a task's own figure, the line that a
# training prints per evaluation (progress), the tables of a comparison and the brief one on the terminal. The value is
# the format at that place, with the figure's name where it is part of a sentence (task, progress); "": `Figure.format`.
EVERYWHERE: dict[Place, str] = {"tile": "", "course": "", "task": "", "table": "", "brief table": ""}
PRINTED: dict[Place, str] = {}  # only by `evaluate`, which prints all figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of metrics.json or of a training's log. Raises ValueError for a wrong key or format."""

    key: str
    """Name in metrics.json and in recipes."""
    label: str
    """Name for people; after a comma, its meaning. Empty: in metrics.json, but not printed."""
    format: str = "{:.2f}"
    """Format with the unit: "{:.1f} %"."""
    better: Literal["higher", "lower"] | None = None
    """Direction; None: neither is better."""
    range: tuple[float, float] | None = None
    """Usual bounds; None: no bounds."""
    short: str = ""
    """Name as a column heading, if the label is too long."""
    meaning: str = ""
    """Explanation below the figure in a report."""
    shown: Mapping[Place, str] = field(default_factory=lambda: EVERYWHERE)
    """Places that show the figure, with their formats; "" for `format`."""
    judges: bool = True
    """Whether a figure with a direction may judge: tasks, if it has a range; runs, if their table shows it."""
    signed: bool = False
    """Whether its signature is printed below it."""
    measure: Measure | None = None
    """Function from outputs and references to the figure; None: every evaluation computes it."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]\w*", self.key):
            raise ValueError(f"the key {self.key!r} is no name: small letters, digits, _")
        for form in (self.format, *filter(None, self.shown.values())):
            if form.count("{") != 1 or form.format(1.0) == form.format(2.0):
                raise ValueError(f"{self.key}: the format {form!r} writes no number: one like '{{:.2f}}' does")

    @property
    def title(self) -> str:
        """Heading of a tile: the label without its meaning."""
        name = self.label.partition(",")[0]
        return name[:1].upper() + name[1:] if name.islower() else name

    @property
    def number(self) -> str:
        """The format without the unit."""
        return self.format[: self.format.index("}") + 1]

    @property
    def heading(self) -> str:
        """Heading of a column: the name with the unit."""
        return (self.short or self.label) + self.format.removeprefix(self.number)

    @property
    def sign(self) -> int:
        """Factor after which higher is better: −1 if lower is better, else 1."""
        return -1 if self.better == "lower" else 1

    def at(self, place: Place) -> str:
        """The format at a place."""
        return self.shown.get(place) or self.format

    def said(self, place: Place, value: Any) -> str:
        """The value with the figure's name, for a sentence: `BLEU 31.2`."""
        return written(self.shown.get(place) or f"{self.short or self.label} {self.format}", value)

    def points(self, value: float) -> float:
        """The value on a scale of 0 to 100 where higher is better: a word error rate gives 100 × (1 − wer)."""
        low, high = self.range or PERCENT
        return 100 / (high - low) * (high - value if self.better == "lower" else value - low)


def written(form: str, value: Any) -> str:
    """A value in this format; `unknown` if it is not a number."""
    return form.format(value) if isinstance(value, (int, float)) else form[: form.index("{")] + "unknown"


OF_EVALUATIONS = (
    Figure("examples", "examples", "{:,.0f}", shown=PRINTED),
    Figure("bleu", "BLEU", "{:.2f}", "higher", PERCENT, meaning="n-gram overlap with the references, 0 to 100",
        shown=EVERYWHERE | {"tile": "{:.1f}", "task": "BLEU {:.1f}", "progress": "BLEU {:.1f}"}, signed=True),
    Figure("bleu_1", "BLEU-1", "{:.2f}", "higher", PERCENT, shown=PRINTED, judges=False),
    Figure("bleu_2", "BLEU-2", "{:.2f}", "higher", PERCENT, shown=PRINTED, judges=False),
    Figure("bleu_3", "BLEU-3", "{:.2f}", "higher", PERCENT, shown=PRINTED, judges=False),
    Figure("bleu_4", "", "{:.2f}", "higher", PERCENT, shown=PRINTED, judges=False),  # BLEU by another name
    Figure("chrf", "chrF", "{:.2f}", "higher", PERCENT, meaning="character n-gram overlap, 0 to 100",
        shown=EVERYWHERE | {"tile": "{:.1f}", "task": "chrF {:.1f}"}, signed=True),
    Figure("wer", "word error rate", "{:.3f}", "lower", (0.0, 1.0), short="WER",
        meaning="word errors per reference word", shown=EVERYWHERE | {"progress": "WER {:.2f}"}, signed=True),
    Figure("cer", "character error rate", "{:.3f}", "lower", (0.0, 1.0), short="CER",
        meaning="character errors per character of the references", shown={"task": "CER {:.3f}", "table": ""},
        signed=True),
    Figure("chrf_pp", "chrF++", "{:.2f}", "higher", PERCENT, shown={"task": "chrF++ {:.1f}", "table": ""}, signed=True),
    Figure("ter", "TER", "{:.2f}", "lower", PERCENT, meaning="edits per hundred words of the references",
        shown={"task": "TER {:.1f}", "table": ""}, signed=True),
    Figure("exact_match_pct", "exactly right", "{:.1f} %", "higher", PERCENT, short="exact",
        meaning="outputs equal to their reference",
        shown={"tile": "", "course": "", "task": "exactly right {:.1f} %", "table": "", "progress": "exact {:.0f} %"}),
    Figure("exact_any_pct", "or as another of that source", "{:.1f} %", shown=PRINTED),
    Figure("rouge_l", "ROUGE-L", "{:.2f}", "higher", PERCENT, shown={"task": "ROUGE-L {:.1f}", "table": ""},
        signed=True),
    Figure("comet", "COMET", "{:.4f}", "higher", shown=PRINTED, signed=True),  # of `score` alone
    Figure("tasks_mean", "mean of the tasks' own metrics", better="higher", short="tasks' mean", shown={"table": ""}),
    Figure("above_copying", "above copying, in the set's own metric", "{:+.2f}", shown=PRINTED),
    Figure("unique_pct", "distinct outputs", "{:.1f} %", "higher", PERCENT, short="unique",
        meaning="distinct outputs per hundred examples",
        shown=EVERYWHERE | {"progress": "unique {:.0f} %"}, judges=False),
    Figure("reference_unique_pct", "distinct references", "{:.1f} %", range=PERCENT, shown=PRINTED),
    Figure("top_output_pct", "commonest output", "{:.1f} %", range=PERCENT, shown=PRINTED),
    Figure("length_ratio", "length, of the references'", meaning="words of the outputs over words of the references",
        shown={"tile": "{:.2f} ×"}),
    Figure("length_sd_ratio", "its spread, of theirs", shown=PRINTED),
    Figure("empty_pct", "empty", "{:.1f} %", range=PERCENT, shown=PRINTED),
    Figure("unfinished_pct", "cut at the longest length", "{:.1f} %", range=PERCENT, shown=PRINTED),
    Figure("repetition_pct", "repeating themselves", "{:.1f} %", range=PERCENT, shown=PRINTED),
    Figure("loss", "loss, nats per target token", "{:.3f}", "lower", short="loss",
        meaning="nats per target token, with its own source",
        shown={"tile": "", "course": "", "table": "", "progress": "valid loss {:.3f}"}),
    Figure("loss_shuffled", "loss, with another's source", "{:.3f}", shown=PRINTED),
    Figure("source_bits", "source bits", "{:.2f}", "higher",
        meaning="what a target token gains from its own source, in bits",
        shown=EVERYWHERE | {"progress": "source bits {:.2f}"}),
    Figure("target_tokens", "", "{:,.0f}", shown=PRINTED),
    Figure("seconds", "seconds", "{:.1f}", shown=PRINTED),
)  # fmt: skip

# Figures of a training's log lines and costs.
OF_TRAININGS = {
    each.key: each
    for each in (
        Figure("loss", "loss", "{:.3f}", "lower", shown={"progress": ""}),
        Figure("learning_rate", "learning rate", "{:.2e}", short="rate", shown={"progress": ""}),
        Figure("tokens_per_s", "tokens/s", "{:,.0f}", shown={"progress": "{:,.0f} tokens/s"}),
        Figure("parameters", "parameters", "{:,}", shown=PRINTED),
        Figure("minutes", "minutes", "{:.1f}", shown=PRINTED),
    )
}

# The first figures at each place; the rest follows in the order above, figures of plug-ins last.
FIRST: dict[Place, tuple[str, ...]] = {
    "tile": ("bleu", "source_bits", "exact_match_pct", "wer"),
    "course": ("loss", "source_bits"),
    "progress": ("loss", "source_bits"),
    "table": (
        "bleu",
        "chrf",
        "chrf_pp",
        "ter",
        "rouge_l",
        "wer",
        "cer",
        "exact_match_pct",
        "unique_pct",
        "source_bits",
        "loss",
    ),
}

FIGURES = {each.key: each for each in OF_EVALUATIONS}


@cache
def _add_plugins() -> None:
    """Add the figures of plug-ins, once per process and on first use, because listing entry points is slow."""
    for each in plugins(GROUP, _taken):
        FIGURES[each.key] = each


def _taken(found: object) -> Figure:
    """A plug-in's figure. Raises TypeError or ValueError if it cannot be measured or its key is taken."""
    if not isinstance(found, Figure):
        raise TypeError(f"it is no sourcewise.figures.Figure but {found!r}")
    if found.key in FIGURES:
        raise ValueError(f"there is a figure {found.key} already")
    if found.measure is None or not found.label:
        raise ValueError(f"{found.key} has no {'label' if found.measure else 'measure'}")
    return found


def figures() -> dict[str, Figure]:
    """Key → figure, for all figures of an evaluation, those of plug-ins last."""
    _add_plugins()
    return FIGURES


def shown(place: Place) -> list[Figure]:
    """The figures shown at a place, in order."""
    first = FIRST.get(place, ())
    found = [each for each in figures().values() if place in each.shown]
    return sorted(found, key=lambda each: first.index(each.key) if each.key in first else len(first))


def judging(use: Use) -> list[str]:
    """Keys of the figures that may judge tasks (`metric` of a set) or runs (`train.best`, `compare.metric`)."""
    able = [each for each in figures().values() if each.judges and each.better]
    return [each.key for each in able if (each.range if use == "tasks" else "table" in each.shown)]
