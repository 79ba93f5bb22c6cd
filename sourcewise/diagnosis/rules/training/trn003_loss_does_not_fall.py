from sourcewise.diagnosis.course import FIRST_STEPS, LEAST_FALL, MEASURED, Course, middle
from sourcewise.diagnosis.rule import Cure, Findings, Rule

LINES = 5  # of losses, at least


class LossDoesNotFall(Rule[Course]):
    """The training loss of the first line logged and the median of the last three, once the warm-up is over.
    ## Why that is bad
    Nothing is learned: the rate is far too low, the weights are frozen, or no gradient reaches them.
    ## Threshold and its origin
    A fall of less than {fall:%}, from {steps} steps on, at a loss of at least {entropy} times what the tokens'
    frequencies alone give. {measured}: 28 % and more after 100 steps.
    """

    code, name, level, rank = "TRN003", "the loss does not fall", "error", 0.4
    explained_by = "WIR001..WIR003 WIR012..WIR014 WIR016 WIR017 TRN002 TRN006 TRN009"
    learned = True
    fall, steps = LEAST_FALL, FIRST_STEPS
    entropy = 0.9  # of the target tokens
    measured = MEASURED
    cures = Cure(
        "A higher rate (about 1e-3 from scratch), nothing frozen:", {"train.learning_rate": 1e-3, "train.freeze": []}
    )

    def check(self, course: Course) -> Findings:
        losses, entropy = course.losses, course.target_entropy
        if course.broken or not course.warm or len(losses) < LINES:
            return
        first, recent = float(losses[0]), middle(losses[-3:])
        if recent < (1 - self.fall) * first or recent < self.entropy * (entropy or 0):
            return
        if not course.fresh and not entropy:
            return  # a loss that pretrained weights begin with may be as low as it gets
        evidence = (
            f"{first:.3f} nats per target token in the first line, {recent:.3f} in the last, at step {course.step}"
        )
        if entropy:
            evidence += f"; knowing how frequent each token is alone gives {entropy:.3f}"
        yield self.finding(evidence)
