"""What the rules over data are given: the sets of a training, and what is known of how it is to read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sourcewise.config import Recipe
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.features import Summary, summarised
from sourcewise.training.setup import TrainingSetup

SAMPLE = 1000  # examples that are looked at closely
FEWEST = 20  # a set of fewer is an experiment: shares mean nothing


@dataclass(frozen=True, slots=True)
class Pairs:
    """The sets of a training. Its recipe, and its network's bridge for features, where there is one."""

    train: ExampleSet
    valid: ExampleSet | None = None
    recipe: Recipe | None = None
    bridge: Any = None
    summaries: dict[int, Summary] = field(default_factory=dict)  # of the parts of `train`

    @classmethod
    def of(cls, prepared: TrainingSetup) -> Pairs:
        """Those of a training that is about to begin."""
        return cls(prepared.train, prepared.valid, prepared.recipe, prepared.network.bridge)

    @property
    def parts(self) -> list[ExampleSet]:
        """The training sets that are large enough to judge; plain text makes its pairs itself."""
        return [part for part in self.train.parts if not part.drawn and len(part) >= FEWEST]

    @property
    def texts(self) -> list[ExampleSet]:
        """Those whose sources are texts."""
        return [part for part in self.parts if not part.dataset.dims]

    def features(self) -> list[tuple[ExampleSet, Summary]]:
        """Those whose sources are features, with what a sample of them holds. Raises RequestError."""
        parts = [part for part in self.parts if part.dataset.dims]
        for part in parts:
            if id(part) not in self.summaries:
                self.summaries[id(part)] = summarised(part)
        return [(part, self.summaries[id(part)]) for part in parts]


def made_of_text(*sets: ExampleSet | None) -> bool:
    """Whether some pairs of these sets are made of plain text."""
    return any(part.drawn for each in sets if each is not None for part in each.parts)


def sample(count: int, size: int = SAMPLE) -> np.ndarray:
    """At most `size` positions, spread evenly through `count`."""
    return np.linspace(0, count - 1, min(count, size)).astype(int)


def named(part: ExampleSet, evidence: str) -> str:
    """Evidence that says of which set it is."""
    return f"{part.dataset.name}: {evidence}"


def quoted(text: str, longest: int = 60) -> str:
    """A text of the user's, on one line, in quotes."""
    flat = " ".join(text.split())
    return '"' + (flat if len(flat) <= longest else flat[: longest - 1] + "…") + '"'
