from sourcewise.diagnosis.course import ENOUGH, FEW_LINES, SLOW, Course
from sourcewise.diagnosis.rule import Cure, Findings, Rule

HALF = 0.5  # of the steps, before which the rate has not done its work


class UpdatesTooLargeOrSmall(Rule[Course]):
    """How far a step near the peak rate moves the weights, as a share of their size: the median over the tensors of
    each part, and all these steps added up.
    ## Why that is bad
    Steps as large as the weights leave nothing of what was learned before. Steps so small that all of them together
    would not change random weights by a twentieth leave them random.
    ## Threshold and its origin
    Above {warning} a warning, above {error} an error. Too small: from random weights, at the end, a sum below {way} of
    the part that moves most; an error where a step is below {slow}. Measured at a rate of 1e-3 on digits and dates:
    1e-3 to 4e-3 a step, the sum 0.3 after 200 steps.
    """

    code, name, level, rank = "TRN009", "updates too large or too small", "error", 0.1
    explained_by = "WIR003 WIR012 WIR014"
    warning, error = 0.3, 1  # of the weights, in a step
    way, slow = 0.05, SLOW  # of the weights over a whole training, and in a step
    cures = Cure("A lower rate; from random weights about 1e-3, fine-tuning about 5e-5:", {"train.learning_rate": 1e-3})

    def check(self, course: Course) -> Findings:
        largest, evidence = course.at_the_peak
        if len(course.train) < FEW_LINES or not largest:
            return
        most = max(largest.values())
        if most > self.warning:
            yield self.finding(evidence, "error" if most > self.error else "warning")
            return
        way = max(course.way(name) for name in largest)
        planned = not course.total or course.step < HALF * course.total  # the rate is still to do its work
        if course.stopped is not None or not course.fresh or planned or way >= self.way:
            return
        if most < self.slow or course.step >= ENOUGH:  # else the number of steps is at fault, not the rate
            cure = Cure("A higher rate; from random weights about 1e-3:", {"train.learning_rate": 1e-3})
            evidence += f"; {course.step} of them, all in one direction, by {way:.2g}"
            yield self.finding(evidence, "error" if most < self.slow else "warning", cure)
