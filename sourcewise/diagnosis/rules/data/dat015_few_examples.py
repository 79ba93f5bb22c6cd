from sourcewise.diagnosis.pairs import Pairs, made_of_text, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class FewExamples(Rule[Pairs]):
    """How many examples there are to train random weights with, and how often each would be seen.
    ## Why that is bad
    They are learned by heart: the loss reaches zero and says nothing. Often a limit that was set to try the recipe is
    still in it.
    ## Threshold and its origin
    Fewer than {examples}, seen {times} times each and more. Ours; the smallest set of a recipe here has 1,000.
    """

    code, name, level, rank = "DAT015", "few examples", "warning", 4.3
    examples, times = 100, 20
    cures = (
        Cure(
            "All examples, or pretrained weights to start from:", {"data.train.limit": None}, {"model.weights": "NAME"}
        ),
        Cure(
            "Or a loss that aligns targets with sources; and, in a long training, each example anew every time:",
            {"train.guided_attention": 1, "train.ctc_weight": 0.3},
            {"train.augment.time_masks": 2, "train.augment.frequency_masks": 2, "train.augment.speed": 0.15},
            {"train.text_noise.drop": 0.1, "train.text_noise.swap": 0.1},
        ),
    )

    def check(self, pairs: Pairs) -> Findings:
        train, plan = pairs.train, pairs.plan
        if plan is None or len(train) >= self.examples or not plan.fresh or made_of_text(train):
            return
        if plan.epochs >= self.times:
            evidence = f"{len(train)} examples, each of which the training sees {plan.epochs:.0f} times"
            yield self.finding(named(train, f"{evidence}; {pairs.limited}" if pairs.limited else evidence))
