from collections.abc import Mapping

from sourcewise.diagnosis.course import EARLY, FALLS, FELL, FIRST_STEPS, LEAST_BITS, LEAST_NATS, PLATEAU, RISE, Course
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class StillLearning(Rule[Course]):
    """The validation loss and the source bits at the end of a training from random weights, beside those after two
    thirds of it.
    ## Why that is bad
    What half-trained networks do is no illness: those that become healthy repeat themselves for a while, and do not
    end. So of such a training loops and what comes of them (OUT003, OUT004, OUT005, OUT007) are notes and other poor
    outputs a level lower, if its source is read or its source bits rise. While a training goes on, what it has not
    learned yet (of outputs, source use, memory, attention) is a note: as long as the loss falls by {falls:words} or
    source bits rise by {rise:words} over the last third of its steps, and before {early:words} of it and {plateau}
    steps. So it is of one that ended before {plateau} steps, if it got better or its source bits are above 0.
    ## Threshold and its origin
    A loss that is lower by {fell:words} and by {nats} nats, or source bits that rose by {rise:words}, and by {bits} or
    beyond their 95 % interval. Digits that end at a WER of 0.9 lost 43 % of their loss in that third, those that end at
    0.07 as many: whether it is good enough, the loss alone does not say. A warning where a training of {trial} steps
    and more ended with source bits below {unread}.
    """

    code, name, level, rank = "TRN014", "still learning at its end", "note", 1.5
    gets_better = True
    excuses, softens = (
        "OUT003..OUT005 OUT007",
        "OUT* -OUT009 -OUT014 -OUT018..OUT020 SRC001",
    )  # loops, and what comes of them; the rest
    fell, nats = FELL, LEAST_NATS  # of the loss, at the end
    rise, bits = RISE, LEAST_BITS  # of the source bits
    trial = FIRST_STEPS
    unread = 0.5  # source bits, below which it has hardly begun to read
    falls, early, plateau = FALLS, EARLY, PLATEAU  # while the training goes on
    cures = Cure("More steps, which also keep the rate up for longer:", {"train.steps": 1000})

    def check(self, course: Course) -> Findings:
        if course.stopped is None and 0 < course.step < course.total:
            last = f"step {course.step} of {course.total} is the last that was logged"
            raise CannotTell("the rest of the training", last)
        if better := course.better_at_the_end:
            bits = course.by_step("source_bits")
            short = course.step >= FIRST_STEPS and bits and bits[-1][1] < self.unread
            said = f"{better}; source bits are {bits[-1][1]:.2f} after all {course.step} steps" if short else better
            yield self.finding(said, "warning" if short else "note")

    def excusing(self, found: Mapping[str, Level]) -> bool:
        """Not where the source is unread, and source bits do not rise."""
        return found.get("TRN005") == "warning" or not found.keys() & {"SRC001", "TRN005"}
