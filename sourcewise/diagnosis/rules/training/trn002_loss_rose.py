from sourcewise.diagnosis.course import MEASURED, Course, stretches
from sourcewise.diagnosis.rule import Cure, Findings, Rule

LINES = 9  # of losses, from which on a course has a shape


class LossRose(Rule[Course]):
    """The training loss in tenths of the lines logged so far (the median of each): how far the last one is above the
    lowest, beside how far the loss had fallen before.
    ## Why that is bad
    The steps are so large that what was learned is lost; further training seldom gets it back.
    ## Threshold and its origin
    At least {least} nats, and {warning:words} of what had been gained (warning) or {error:words} of it (error).
    {measured}: below 0.1 nats. Not judged with scheduled sampling, where the loss rises by design.
    """

    code, name, level, rank = "TRN002", "the loss rose and stayed", "error", 0.5
    explained_by = "DAT001 DAT013 DAT014 WIR001 WIR002 WIR014 TRN009"
    least = 0.5  # nats
    warning, error = 0.25, 0.5  # of what had been gained
    measured = MEASURED
    cures = Cure(
        "A lower rate, and a warm-up that gets there slowly:", {"train.learning_rate": 3e-4, "train.warmup_steps": 1000}
    )

    def check(self, course: Course) -> Findings:
        if not course.broken and course.plan.fed_back:
            return  # who is fed more of his own words from step to step loses by it
        if len(course.train) < LINES:
            return
        levels = stretches(course.losses)
        place = int(levels.argmin())
        rise, gained = levels[-1] - levels[place], max(levels[0], course.losses[0]) - levels[place]
        if rise >= max(self.least, self.warning * gained):
            evidence = f"the loss rose from {levels[place]:.2f} to {levels[-1]:.2f} nats (medians of a {len(levels)}th"
            evidence += f" of the lines), having fallen by {gained:.2f} before"
            yield self.finding(evidence, "error" if rise >= self.error * gained else "warning")
