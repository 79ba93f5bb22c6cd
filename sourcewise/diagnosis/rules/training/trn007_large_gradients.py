from sourcewise.diagnosis.course import FEW_LINES, MEASURED, Course, middle, stretches
from sourcewise.diagnosis.rule import Cure, Findings, Rule

SMALL = 1e-2  # a norm that may grow to a usual one


class LargeGradients(Rule[Course]):
    """The norm of the gradient before clipping, in nats per target token: its median, and how it grew.
    ## Why that is bad
    Clipping keeps them from doing harm at once, but says that something is far out of scale, and what does the work is
    then whatever shouts loudest.
    ## Threshold and its origin
    A median above {high}, or {grown} times what it was in the first half. {measured}: 0.3 to 10.
    """

    code, name, level, rank = "TRN007", "large gradients", "warning", 0.3
    explained_by = "DAT013 DAT014 WIR002 WIR014 WIR016 TRN009"
    high, grown = 100, 100  # the median norm, and times what it was
    measured = MEASURED
    cures = Cure(
        "Standardised features, an initialisation as the family's own, a lower rate:",
        {"model.bridge.normalize": True, "train.learning_rate": 3e-4},
    )

    def check(self, course: Course) -> Findings:
        norms = course.values("gradient_norm")
        if len(course.train) < FEW_LINES or not len(norms):
            return
        levels, median = stretches(norms), middle(norms)
        first = levels[: len(levels) // 2]
        if median > self.high:
            yield self.finding(f"the norm of the gradient is {median:.3g} (median of {len(norms)} lines)")
        elif len(levels) > 2 and levels[-1] > self.grown * max(first.min(), SMALL):
            evidence = f"the norm of the gradient grew from {first.min():.2g} to {levels[-1]:.3g}"
            yield self.finding(f"{evidence} (medians of a {len(levels)}th of the lines)")
