from sourcewise.diagnosis.course import ENOUGH, SLOW, Course
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class TooShortToJudge(Rule[Course]):
    """The steps of a training from random weights, and how far their updates together could move the weights.
    ## Why that is bad
    What has hardly left its random initialisation says nothing yet about data, wiring or rate.
    ## Threshold and its origin
    Fewer than {steps} steps, whose updates add up to less than {way:words} of the weights, or fewer than {few}.
    """

    code, name, level, rank = "TRN013", "training too short to judge", "note", 1.4
    excuses, implies = (
        "TRN* -TRN001 -TRN016 MEM* ATT* SRC* OUT* -OUT014 -OUT018 -OUT019 -OUT020",
        "TRN* -TRN001 -TRN016",
    )
    steps, few, way = ENOUGH, 50, 0.1  # of the weights
    cures = Cure("More steps:", {"train.steps": 1000})

    def check(self, course: Course) -> Findings:
        parts = [part for part in course.parts("update_ratios") if part != "other"]
        if not course.finished or not course.fresh or not parts or course.step >= self.steps:
            return
        way = max(course.way(part) for part in parts)
        peak = max(float(course.values("update_ratios", part).max()) for part in parts)
        if peak < SLOW or (way >= self.way and course.step >= self.few):
            return  # so low a rate is at fault, not the number of steps
        evidence = (
            f"{course.step} steps; their updates, all in one direction, move the weights by {way:.2g} of their size"
        )
        yield self.finding(f"{evidence}; the loss went from {course.losses[0]:.2f} to {course.losses[-1]:.2f}")
