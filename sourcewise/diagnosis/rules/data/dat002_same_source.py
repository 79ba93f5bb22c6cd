from collections import Counter

from sourcewise.diagnosis.pairs import Pairs, named, quoted
from sourcewise.diagnosis.rule import Cure, Findings, Rule

KEPT = Cure(
    "Name these columns among the arguments of forward(), or keep what it does not name, in the arguments of the "
    "training:",
    "remove_unused_columns=False",
)


class SameSource(Rule[Pairs]):
    """The share of examples that have the commonest source text (a task prefix alone is an empty source).
    ## Why that is bad
    Where sources are empty or all alike nothing tells the targets apart: only a language model can be learned.
    ## Threshold and its origin
    Warning from {warning:%} of the examples, error from {error:%}, where these have at least {different} different
    targets. Ours: a set of questions may well repeat one, half of a set may not. In a Trainer columns of numbers that
    its data set has and no batch holds are named.
    """

    code, name, level = "DAT002", "same source for many targets", "error"
    warning, error = 0.05, 0.5  # of the examples
    different = 10  # targets
    cures = Cure(
        "Check that the source column is the one meant, and that its cells are filled:",
        {"data.train.source": "COLUMN", "data.train.target": "COLUMN"},
    )

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.texts:
            text, count = Counter(example.source for example in part.dataset).most_common(1)[0]
            level = self.from_on(count / len(part))
            targets = {example.target for example in part.dataset if example.source == text}
            if level and len(targets) >= self.different:
                what = quoted(text) if text.strip() else "empty"
                evidence = f"{100 * count / len(part):.0f} % of {len(part)} sources are {what}, with {len(targets)}"
                evidence = named(part, f"{evidence} different targets")
                if pairs.ids is not None and pairs.ids.removed:
                    evidence += f"; the data set has the columns {', '.join(pairs.ids.removed)}, which no batch holds: "
                    evidence += "a Trainer removes what forward() does not name"
                    yield self.finding(evidence, level, KEPT)
                else:
                    yield self.finding(evidence, level)
