"""What cures did when they were measured: each alone, three seeds, beside none. The tables are in docs/results.md.

measured.json is made by scripts/measured_cures.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sourcewise.diagnosis.cure import Cure, Options

FILE = Path(__file__).with_suffix(".json")
ILLNESSES = {  # the comparison of cures → what they were tried on
    "compare_cures_few": "300 recordings of spoken digits",
    "compare_cures_imbalanced": "signed weather, most words of it rare",
    "compare_cures_pooled": "written digits pooled into one vector",
    "compare_cures_deep": "written digits through ten layers of GRU and one fixed vector",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """Means over seeds of a comparison's figure and of the source bits, without and with a cure."""

    comparison: str
    changes: dict[str, Any]
    metric: str
    before: float
    after: float
    bits_before: float
    bits_after: float
    effect: Literal["better", "worse", "chance"]

    def __str__(self) -> str:
        changes = " ".join(f"{key} {json.dumps(value)}" for key, value in self.changes.items()).replace('"', "")
        before, after = (f"{value:.{2 if self.metric == 'wer' else 1}f}" for value in (self.before, self.after))
        figure = f"{self.metric.upper()} {before} → {after}"
        doubt = " (may be chance)" if self.effect == "chance" else ""
        return f"{changes}: {figure}{doubt}, source bits {self.bits_before:z.2f} → {self.bits_after:z.2f}"


def told(cures: Iterable[Cure]) -> str:
    """What the options of cures did, an illness a paragraph; empty where none was measured."""
    options = {name for cure in cures for name in cure.options}
    paragraphs = []
    for comparison, illness in ILLNESSES.items():
        found = [e for e in effects() if e.comparison == comparison and options & set(e.changes)]
        if found:
            paragraphs.append("\n".join([f"On {illness}:", *(f"- {effect}" for effect in found)]))
    return "\n".join(paragraphs)


def by_effect(*ways: Options) -> list[Options]:
    """The same ways, those first that gained most source bits where each was tried alone, on average."""

    def gained(way: Options) -> float:
        gains = [e.bits_after - e.bits_before for e in effects() if e.changes.keys() == way.keys()]
        return sum(gains) / len(gains) if gains else 0.0

    return sorted(ways, key=gained, reverse=True)


@functools.cache
def effects() -> tuple[Effect, ...]:
    """All that was measured."""
    return tuple(Effect(**each) for each in json.loads(FILE.read_text(encoding="utf-8")))
