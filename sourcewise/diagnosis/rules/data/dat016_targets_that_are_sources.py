from collections.abc import Iterable, Sequence
from typing import Any

from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Example
from sourcewise.diagnosis.pairs import FEWEST, SAMPLE, Pairs, made_of_text, named, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule

ANSWER = Cure("Build sources without what is to be said, for training and for validation alike.")

COLLATOR = Cure(
    "Take the collator of encoder-decoder models, which keeps the labels; that of language models makes its own:",
    "DataCollatorForSeq2Seq(tokenizer, model=model)  # not DataCollatorForLanguageModeling",
)


class TargetsThatAreSources(Rule[Pairs]):
    """The share of training pairs whose target is the text of its source (a prefix left out, case ignored), beside that
    of the validation set. Texts only; up to {pairs} pairs.
    ## Why that is bad
    What is learned is to copy, and the loss on it is near zero; on real pairs the model repeats its input.
    ## Threshold and its origin
    From {warning:%}, where the validation set has less than {usual:words} of that, a warning; an error from
    {error:words} of the pairs where there is a validation set. Ours. Tasks that copy, such as correction, do so in
    both. Where texts are ids and no validation set is there to compare, a warning from {error:words} of the pairs, and
    {kinds} different tokens: copying a few letters is an exercise. Where {answered:%} of the sources or more end with
    their target and have more before it, a warning. An error in a Trainer whose batches have labels that are sources,
    and whose data set has others: so it is with the collator of a causal model.
    """

    code, name, level, rank = "DAT016", "targets that are their sources", "error", 4.1
    warning, error = 0.1, 0.5  # of the pairs
    usual = 0.2  # of that, in the validation set
    pairs, kinds = SAMPLE, 64
    answered = 0.9  # of the pairs
    cures = Cure(
        "See that the target column is the one meant, and leave untranslated pairs out:",
        {"data.train.target": "COLUMN"},
    )

    def check(self, pairs: Pairs) -> Findings:
        train = pairs.train
        if train.dataset.dims or made_of_text(train):
            return
        if pairs.ids is not None:
            yield from self.of_ids(pairs)
            return
        rows = [(e.source.casefold().split(), e.target.casefold().split()) for e in chosen(train)]
        yield from self.of_answers(pairs, [(tuple(a), tuple(b)) for a, b in rows])
        share, of_valid = copied(train), copied(pairs.valid) if pairs.valid else None
        if len(train) < FEWEST or share < self.warning or (of_valid or 0.0) > self.usual * share:
            return
        evidence = f"{100 * share:.0f} % of the targets are the text of their source"
        evidence += f"; of those of the validation set {100 * of_valid:.0f} %" if of_valid is not None else ""
        grave = share >= self.error and of_valid is not None
        yield self.finding(named(train, evidence), "error" if grave else "warning")

    def of_ids(self, pairs: Pairs) -> Findings:
        """Of a training of others, whose texts are ids, and whose validation set comes later."""
        train = pairs.train
        if len(train) < FEWEST or train.sources is None:
            return
        rows = [(_bare(train.sources[i]), _bare(train.targets[i])) for i in sample(len(train)).tolist()]
        yield from self.of_answers(pairs, rows)
        share = sum(source == target for source, target in rows) / len(rows)
        kinds = len({i for _, target in rows for i in target})
        if share >= self.error and pairs.ids is not None and pairs.ids.overwritten:
            evidence = f"{100 * share:.0f} % of the labels of the batches are the ids of their source"
            yield self.finding(named(train, f"{evidence}; {pairs.ids.overwritten}"), "error", COLLATOR)
        elif share >= self.error and kinds >= self.kinds:
            evidence = f"{100 * share:.0f} % of the targets have the ids of their source, of which there are "
            yield self.finding(named(train, f"{evidence}{kinds} different ones"), "warning")

    def of_answers(self, pairs: Pairs, rows: Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> Findings:
        """Of sources that hold what is to be said: (source, target) tokens."""
        held = [source[-len(target) :] == target != source for source, target in rows if target]
        if len(held) >= FEWEST and sum(held) >= self.answered * len(held):
            evidence = f"{100 * sum(held) / len(held):.0f} % of {len(held)} sources end with their target, behind more"
            yield self.finding(named(pairs.train, f"{evidence}: the answer stands in the question"), "warning", ANSWER)


def _bare(ids: Iterable[int]) -> tuple[int, ...]:
    """Without the last, which may end one side and not the other."""
    return tuple(int(i) for i in ids)[:-1]


def chosen(examples: ExampleSet) -> list[Example]:
    """A sample of a set."""
    return [examples.dataset[int(i)] for i in sample(len(examples))]


def copied(examples: ExampleSet) -> float:
    """The share of pairs whose target ends their source, and is half of it or more: a prefix may stand before it."""
    pairs = [(" ".join(e.source.casefold().split()), " ".join(e.target.casefold().split())) for e in chosen(examples)]
    return sum(source.endswith(target) and 2 * len(target) >= len(source) for source, target in pairs) / len(pairs)
