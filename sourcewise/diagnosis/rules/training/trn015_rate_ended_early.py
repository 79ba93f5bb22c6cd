from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class RateEndedEarly(Rule[Course]):
    """The share of the logged steps at the end of a training whose learning rate is next to nothing: below {nothing} of
    its peak.
    ## Why that is bad
    Nothing is learned at a rate of zero. A schedule that was made for fewer steps than are taken (its own number of
    steps or epochs, batches counted before accumulation, a scheduler that is stepped twice) ends the training early.
    ## Threshold and its origin
    Warning from {warning:%} of the steps, error from {error:%}, of {lines} lines or more. Measured: schedules that fall
    to zero at the last step, in a line or a cosine, have at most 2 %.
    """

    code, name, level = "TRN015", "the learning rate ended before the training", "error"
    learned = False
    warning, error = 0.15, 0.4  # of the steps
    nothing, lines = 1e-3, 10  # of the peak; lines
    explains = "OUT00* SRC* ATT* MEM* TRN003..TRN005"
    cures = Cure(
        "Give the schedule the number of steps that are taken: steps an epoch / accumulated batches, times epochs; and "
        "step it once a step. Ours follows:",
        {"train.steps": 10_000},
    )

    def check(self, course: Course) -> Findings:
        known = [(int(line["step"]), line.get("learning_rate")) for line in course.train]
        rates = [(step, float(rate)) for step, rate in known if isinstance(rate, (int, float))]
        peak = max((rate for _, rate in rates), default=0.0)
        if len(rates) < self.lines or peak <= 0:
            return
        alive = max(step for step, rate in rates if rate > self.nothing * peak)
        last = rates[-1][0]
        if level := self.from_on((last - alive) / max(1, last)):
            evidence = f"after step {alive:,} of {last:,} the rate is at most {self.nothing:g} of its peak, {peak:.2g}"
            yield self.finding(evidence, level)
