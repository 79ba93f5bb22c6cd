from collections import Counter

from sourcewise.diagnosis.pairs import Pairs, named, quoted
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SameTarget(Rule[Pairs]):
    """The share of examples that have the commonest target, beside how many different targets there are.
    ## Why that is bad
    Saying it always is right that often: the loss is low before any source is read, and gives no reason to.
    ## Threshold and its origin
    Error from {error:%}, or from {error_of_varied:%} in a set of {varied} different targets or more; warning from
    {warning:%}, or from {warning_of_varied:%} in such a set. Ours: two labels of half of the examples each are no
    imbalance, and the commonest reply of a healthy chat set has 17 %.
    """

    code, name, level = "DAT004", "one target for many sources", "error"
    warning, error = 0.8, 0.9  # of the targets
    varied = 10  # different targets, from which a set is no list of labels; then:
    warning_of_varied, error_of_varied = 0.3, 0.5
    cures = (
        Cure(
            "Keep fewer of these examples. A loss that wants the own source likelier than another's, and one for "
            "which what is certain counts little:",
            {"train.contrastive": 0.3, "train.focal": 2},
        ),
        Cure(
            "To let rare tokens come more often, or weigh more, is meant for few that dominate; where many words "
            "are rare it did harm:",
            {"train.resample_below": 0.01},
            {"train.token_weights": "effective_number"},
        ),
    )

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.parts:
            counts = Counter(example.target for example in part.dataset)
            (text, most), size = counts.most_common(1)[0], len(part)
            share, varied = most / size, len(counts) >= self.varied
            level = self.from_on(share)
            if varied and share >= self.warning_of_varied:
                level = "error" if level == "error" or share >= self.error_of_varied else "warning"
            if level:
                evidence = f"{100 * share:.0f} % of {size} targets are {quoted(text)}; different targets: {len(counts)}"
                yield self.finding(named(part, evidence), level)
