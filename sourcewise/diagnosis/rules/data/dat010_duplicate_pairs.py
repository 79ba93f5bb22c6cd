from collections import Counter

from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.pairs import Pairs, named, quoted
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class DuplicatePairs(Rule[Pairs]):
    """The share of examples whose source and target both stand in an earlier example of their set too. Texts only.
    ## Why that is bad
    They count more than others, and a random split of such a set puts the same pair on both sides.
    ## Threshold and its origin
    Note from {note:%}, warning from {warning:%}. A note alone where {single:%} of the pairs stand there once, none more
    than {often} times, and the validation set has no more than {shared:%} of them: rows are then weighted by their
    number. Ours.
    """

    code, name, level = "DAT010", "duplicate pairs", "warning"
    note, warning = 0.05, 0.3  # of the examples
    single, often, shared = 0.1, 20, 0.01  # of the pairs; times; of the validation set
    cures = Cure(
        "Keep one of each, or give rarer sets a weight of their own (data.train.weight) instead of copies.",
        instead="Keep one of each; draw rarer sets more often instead of copying them.",
    )

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.texts:
            counts = Counter((example.source, example.target) for example in part.dataset)
            size, copies = len(part), len(part) - len(counts)
            if copies >= self.note * size:
                (source, _), most = counts.most_common(1)[0]
                evidence = f"{100 * copies / size:.0f} % of {size} pairs are copies; that of {quoted(source)} "
                evidence += f"comes {most} times"
                level: Level = "warning" if copies >= self.warning * size else "note"
                if level == "warning" and self.is_meant(pairs, counts):
                    evidence += "; they vary in number, and the validation set has none, as where that is their weight"
                    level = "note"
                yield self.finding(named(part, evidence), level)
        if pairs.train.dataset.dims:
            raise CannotTell("duplicates and several targets for one source", "sources are features")

    def is_meant(self, pairs: Pairs, counts: Counter[tuple[str, str]]) -> bool:
        """Whether rows are as many times there as they are to count: some once, none very often, and none held out."""
        if pairs.valid is None:
            return False
        once, most = sum(n == 1 for n in counts.values()), max(counts.values())
        held = sum((example.source, example.target) in counts for example in pairs.valid.dataset)
        return once >= self.single * len(counts) and most <= self.often and held <= self.shared * len(pairs.valid)
