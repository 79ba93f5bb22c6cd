from sourcewise.diagnosis.course import (
    EARLY,
    FALLS,
    FELL,
    LEAST_BITS,
    LEAST_NATS,
    PLATEAU,
    RISE,
    Course,
    getting_better,
)
from sourcewise.diagnosis.rule import Findings, Rule


class StillLearning(Rule[Course]):
    """
    ## What it measures
    The validation loss and the source bits at the end of a training from random weights, beside those after two
    thirds of it.

    ## Why that is bad
    What half-trained networks do is no illness: those that become healthy repeat themselves for a while, and do
    not end. So of such a training loops and what comes of them (OUT003, OUT004, OUT005, OUT007) are notes and
    other poor outputs a level lower, if its source is read or its source bits rise. While a training goes on,
    what it has not learned yet (of outputs, source use, memory, attention) is a note: as long as the loss falls
    by {falls:words} or source bits rise by {rise:words} over the last third of its steps, and before
    {early:words} of it and {plateau} steps. So it is of one that ended before {plateau} steps, if it got better
    or its source bits are above 0.

    ## Threshold and its origin
    A loss that is lower by {fell:words} and by {nats} nats, or source bits that rose by {rise:words}, and by
    {bits} or beyond their 95 % interval. Digits that end at a WER of 0.9 lost 43 % of their loss in that third,
    those that end at 0.07 as many: whether it is good enough, the loss alone does not say.

    ## What to do
    More steps, which also keep the rate up for longer:
        --train.steps 1000
    """

    code, name, level = "TRN014", "still learning at its end", "note"
    implied_by = "TRN013"
    rank = 1.5
    fell, nats = FELL, LEAST_NATS  # of the loss, at the end
    rise, bits = RISE, LEAST_BITS  # of the source bits
    falls, early, plateau = FALLS, EARLY, PLATEAU  # while the training goes on

    def check(self, course: Course) -> Findings:
        looked = course.finished and course.fresh and len(course.by_step("loss")) > 1
        if better := getting_better(course, self.fell) if looked else "":
            yield self.finding(better)
