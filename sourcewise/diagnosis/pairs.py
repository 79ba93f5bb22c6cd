"""What the rules over data are given: the sets of a training, and what is known of how it is to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.noise.features import Augmenter
from sourcewise.diagnosis.measures.features import Summary, summarised
from sourcewise.diagnosis.measures.forms import Form
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rule import CannotTell

SAMPLE = 1000  # examples that are looked at closely
FEWEST = 20  # a set of fewer is an experiment: shares mean nothing
MOSTLY = 0.5  # of the sources: where so many are cut, what is left tells little of the whole
SPIKE, NEAR, KINDS = 5, 3, 6  # times; lengths next to the largest; lengths that there are
ALIKE = 0.95  # of the targets: where more have one length, a set is made of such


@dataclass(frozen=True, slots=True)
class Ids:
    """What is known of texts that are there as ids only: how their tokenizer ends them, and where it cuts them."""

    ends: tuple[int, ...] = ()  # ids that a whole text ends with; (): it does not end them
    longest: int | None = None  # tokens that it keeps of a text
    told: int | None = None  # tokens that it was last told to keep
    unknown: int | None = None  # what it says for what it does not know
    whole_words: bool = False  # whether that is what its vocabulary has
    likely: int | None = None  # where `unknown` is not known: an id of sources that looks like it
    removed: tuple[str, ...] = ()  # columns of matrices that a data set has and its batches have not
    overwritten: str = ""  # what a data set has in the place of labels that are its sources, in words


@dataclass(frozen=True, slots=True)
class Cut:
    """Sources of ids that were cut: how many of how many, at how many tokens, how that shows, beside the targets."""

    sources: int
    all: int
    tokens: int
    why: str
    target_tokens: float  # of a target, on average

    @property
    def mostly(self) -> bool:
        """Whether what is left tells little of the whole."""
        return self.sources >= MOSTLY * self.all and self.tokens < self.target_tokens


@dataclass(frozen=True)
class Pairs:
    """The sets of a training, None where they are `refused`: why, in words. `test` are those of its final evaluation.

    `limits` are the options that cut sources, targets and outputs, by name; `whole_words` says whether that is what
    the tokenizer has; `ids` that there are no texts as written; `scale` (mean, deviation) is what features are
    standardised by, `kept` the share of source tokens that noise leaves, `augmenter` the noise of features.
    """

    opened: ExampleSet | None
    valid: ExampleSet | None = None
    test: Sequence[Dataset] = ()
    refused: str = ""
    plan: Plan | None = None
    limits: Mapping[str, int] | None = None
    limited: str = ""  # what leaves examples out, where something does
    whole_words: bool = False
    ids: Ids | None = None
    scale: tuple[np.ndarray, np.ndarray] | None = None
    kept: float | None = None
    augmenter: Augmenter | None = None
    fewest: int = FEWEST  # examples of a set that is judged
    summaries: dict[int, Summary] = field(default_factory=dict)  # of the parts of `train`
    passed: Sequence[Form] = ()  # of matrices that are not here as they were given
    column: str = ""  # of the sources, where the training names one

    about = "the training data"

    @property
    def train(self) -> ExampleSet:
        """The training set. Raises CannotTell where it was refused."""
        if self.opened is None:
            raise CannotTell("everything else", "the data cannot be opened")
        return self.opened

    @property
    def parts(self) -> list[ExampleSet]:
        """The training sets that are large enough to judge; plain text makes its pairs itself."""
        return [part for part in self.train.parts if not part.drawn and len(part) >= self.fewest]

    def held_out(self) -> list[tuple[str, Dataset]]:
        """The sets that are not trained on, each with what it is for; those of plain text are left out.

        Raises CannotTell where there are none.
        """
        if self.valid is None and not self.test:
            why = "there is no validation set to hold against it"
            raise CannotTell("validation examples in the training set", why)
        valid = [] if self.valid is None or made_of_text(self.valid) else [self.valid.dataset]
        known = [_ends(part.dataset) for part in (self.valid.parts if self.valid else ()) if not part.drawn]
        test = [each for each in self.test if each.plain is None and _ends(each) not in known]
        return [("validation", each) for each in valid] + [("test", each) for each in test]

    def held_sets(self) -> list[Dataset]:
        """The same, each task of a mixture by itself; none where there are none."""
        valid = [part.dataset for part in (self.valid.parts if self.valid else ()) if not part.drawn]
        known = [_ends(each) for each in valid]
        return valid + [each for each in self.test if each.plain is None and _ends(each) not in known]

    @property
    def texts(self) -> list[ExampleSet]:
        """Those whose sources are texts. Raises CannotTell where most of them are cut."""
        self.check_whole()
        return [part for part in self.parts if not part.dataset.dims]

    def check_whole(self) -> None:
        """Raises CannotTell where most sources are cut: what is left of them tells little of the whole."""
        if self.cut is not None and self.cut.mostly:
            raise CannotTell("what sources tell", "most of them are cut")

    def check_written(self) -> None:
        """Raises CannotTell where texts are not there as they were written."""
        if self.ids is not None:
            raise CannotTell("what only texts as written and matrices tell", "the data is ids already")

    def features(self) -> list[tuple[ExampleSet, Summary]]:
        """Those whose sources are features, with what a sample of them holds. Raises CannotTell and RequestError."""
        self.check_written()
        parts = [part for part in self.parts if part.dataset.dims]
        for part in parts:
            if id(part) not in self.summaries:
                self.summaries[id(part)] = summarised(part)
        return [(part, self.summaries[id(part)]) for part in parts]

    def forms(self) -> list[tuple[str, Sequence[Form]]]:
        """The forms of matrices, by name of their set; none of images, and of what never changes. Raises as above."""
        if self.passed:
            return [(self.train.dataset.name, self.passed)]
        found = [(part, summary) for part, summary in self.features() if not summary.constant]
        return [(part.dataset.name, summary.forms) for part, summary in found if not part.dataset.image]

    @cached_property
    def cut(self) -> Cut | None:
        """Which sources of ids were cut: they end otherwise than whole texts do; None where nothing shows it."""
        if self.ids is None or self.train.sources is None:
            return None
        train, lengths = self.train, self.train.source_lengths
        longest = int(lengths.max())
        full = lengths == longest
        why = "as many as the tokenizer's model_max_length"
        if longest == self.ids.told and _piled(lengths, train.target_lengths):
            why = "as many as the tokenizer was told to keep (max_length), and lengths are spread otherwise"
        elif longest != self.ids.longest:
            if not self.ids.ends:
                return None
            full &= np.array([int(ids[-1]) not in self.ids.ends for ids in train.sources])  # type: ignore[union-attr]
            why = "the most there are, and not the end of text, which the tokenizer gives each text"
        return Cut(int(full.sum()), len(full), longest, why, float(train.target_lengths.mean()))


def _piled(lengths: np.ndarray, targets: np.ndarray) -> bool:
    """Whether sources have their largest length more often than texts have by themselves: nearly all of them, while
    targets differ in length, or many times as often as any of the lengths next to it.
    """
    kinds, counts = np.unique(lengths, return_counts=True)
    if len(kinds) == 1:
        return np.unique(targets, return_counts=True)[1].max() < ALIKE * len(targets)
    near = max((int(n) for kind, n in zip(kinds, counts, strict=True) if 0 < kinds[-1] - kind <= NEAR), default=0)
    return len(kinds) >= KINDS and int(counts[-1]) >= SPIKE * near


def _ends(dataset: Dataset) -> tuple[object, ...]:
    """What tells a set from another: validation set and test set may be the same."""
    return dataset.name, len(dataset), dataset[0], dataset[-1]


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
