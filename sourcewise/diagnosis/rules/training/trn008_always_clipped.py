from sourcewise.diagnosis.course import FEW_LINES, Course, middle
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class AlwaysClipped(Rule[Course]):
    """The share of steps whose gradient was clipped, and the median norm beside the limit.
    ## Why that is bad
    The limit, not the gradient, then sets the size of what AdamW averages. AdamW divides by that size again, so it
    seldom hurts; a batch ten times as hard counts no more than others.
    ## Threshold and its origin
    {often:%} of the steps, at a median norm of {far} times the limit. Healthy ones are clipped often, to 1 from 2.
    """

    code, name, level = "TRN008", "always clipped", "note"
    explained_by = "TRN007"
    often, far = 0.99, 10  # of the steps, and times the limit
    cures = Cure("Nothing, if the loss falls. Else a limit in the range of the norms:", {"train.clip": 10})

    def check(self, course: Course) -> Findings:
        if course.stopped is not None or len(course.train) < FEW_LINES:
            return
        shares, limit = course.values("clipped"), course.plan.clip
        norm = middle(course.values("gradient_norm"))
        if len(shares) and limit and shares.mean() >= self.often and norm >= self.far * limit:
            evidence = f"{100 * shares.mean():.0f} % of the steps were clipped to {limit:g}"
            yield self.finding(f"{evidence}; the norm is {norm:.3g} (median)")
