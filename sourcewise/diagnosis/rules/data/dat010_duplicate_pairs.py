from collections import Counter

from sourcewise.diagnosis.pairs import Pairs, named, quoted
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class DuplicatePairs(Rule[Pairs]):
    """The share of examples whose source and target both stand in an earlier example of their set too. Texts only.
    ## Why that is bad
    They count more than others, and a random split of such a set puts the same pair on both sides.
    ## Threshold and its origin
    Note from {note:%}, warning from {warning:%}. Ours.
    """

    code, name, level = "DAT010", "duplicate pairs", "warning"
    note, warning = 0.05, 0.3  # of the examples
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
                yield self.finding(named(part, evidence), "warning" if copies >= self.warning * size else "note")
        if pairs.train.dataset.dims:
            raise CannotTell("duplicates and several targets for one source", "sources are features")
