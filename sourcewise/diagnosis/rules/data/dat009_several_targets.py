import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from sourcewise.diagnosis.pairs import Pairs, named, quoted
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class SeveralTargets(Rule[Pairs]):
    """The share of examples whose source text comes with different targets, and the loss that no model can get below
    for it: the entropy of the targets given the source, in nats per target token.
    ## Why that is bad
    One of them is said, the others count as wrong; a loss that stays there is no fault of the training.
    ## Threshold and its origin
    Note from {note:%} of the examples, warning where the loss that is left is {nats} nats per token or more. Ours.
    """

    code, name, level = "DAT009", "several targets for one source", "warning"
    explained_by = "DAT002 DAT003"
    note, nats = 0.01, 0.5  # of the examples, and a target token
    cures = Cure(
        "Nothing, where all of them are right (paraphrases): judge by metrics that take several. Else leave the"
        " worse ones out, or give the source what tells them apart, such as more of the conversation."
    )

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.texts:
            groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
            for example in part.dataset:
                groups[example.source][example.target] += 1
            several = {source: targets for source, targets in groups.items() if len(targets) > 1}
            size, examples = len(part), sum(sum(targets.values()) for targets in several.values())
            if not several or examples < self.note * size:
                continue
            floor = sum(entropy(targets.values()) for targets in several.values()) / int(part.target_lengths.sum())
            worst = max(several, key=lambda source: len(several[source]))
            evidence = (
                f"{100 * examples / size:.1f} % of {size} examples share their source with another target; "
                f"{quoted(worst)} has {len(several[worst])}; no model gets below {floor:.2g} nats per target token "
                "on this set"
            )
            yield self.finding(named(part, evidence), "warning" if floor >= self.nats else "note")
        if pairs.train.dataset.dims:
            raise CannotTell("duplicates and several targets for one source", "sources are features")


def entropy(counts: Iterable[int]) -> float:
    """Entropy of what is counted, times how often it is: nats."""
    numbers = list(counts)
    return -sum(n * math.log(n / sum(numbers)) for n in numbers)
