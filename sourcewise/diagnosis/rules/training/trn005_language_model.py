from collections.abc import Sequence

from sourcewise.diagnosis.course import (
    EARLY,
    FREQUENCIES,
    LEAST_FALL,
    MEASURED,
    PLATEAU,
    Course,
    Line,
    bits_rise,
    too_early,
)
from sourcewise.diagnosis.measured import by_effect
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.evaluation.verdict import SOURCE_BITS


class LanguageModel(Rule[Course]):
    """The 95 % interval of the source bits at the evaluations in training, on sets of which at least {different:words}
    of the references are different.
    ## Why that is bad
    The loss falls because the decoder learns which words follow which. That is the easy part; if the source does not
    help by then, nothing pulls the decoder towards it any more.
    ## Threshold and its origin
    The upper end below {bits} bits per token: a warning at the second evaluation in a row after {early:words} of the
    training and {plateau} steps; an error at its end, unless source bits still rise (TRN014). Of a training that ended
    before {plateau} steps and still got better: a warning if the intervals of the last {looks:words} evaluations all
    reach down to 0, else a note. {measured}: 0.3 to 8 at the first evaluation. Trainings that come off this plateau by
    themselves are why it is a warning at first.
    """

    code, name, level = "TRN005", "it has become a language model", "error"
    explained_by = (
        "DAT* -DAT001 -DAT005 -DAT008 -DAT009 -DAT016 -DAT019..DAT021 WIR* -WIR006..WIR010 -WIR021 "
        "TRN002..TRN004 TRN006 TRN009 MEM001"
    )
    bits, different = SOURCE_BITS, 0.5  # a token, and of the references
    early, plateau, measured = EARLY, PLATEAU, MEASURED
    looks = 4  # evaluations in a row
    cures = Cure(
        "See whether the source can help at all: sources and targets must be of the same row. Then make it easier to "
        "read (fewer frames a slot, more slots), let the loss ask for it, and make the decoder's own way harder; what "
        "gained most source bits where it was measured comes first:",
        *by_effect({"train.contrastive": 0.3}, {"train.ctc_weight": 0.3}, {"train.word_dropout": 0.3}),
        instead="See whether the source can help at all: sources and targets must be of the same row. Then train "
        "longer, or begin from a model that reads such sources already.",
    )

    def check(self, course: Course) -> Findings:
        if course.broken or not course.train:
            return
        if not course.evaluations:
            raise CannotTell("source use in the course of training", "no evaluation was logged")
        measured = [e for e in course.evaluations if (e.get("source_bits_ci95") or [None])[0] is not None]
        if not measured:
            return
        if measured[-1].get("reference_unique_pct", 0) < 100 * self.different:
            return  # labels hold few bits to read
        entropy = course.target_entropy
        if course.losses[-1] > ((1 - FREQUENCIES) * entropy if entropy else (1 - LEAST_FALL) * course.losses[0]):
            return  # not even a language model
        unread = 0
        for line in reversed(measured):
            if line["source_bits_ci95"][1] >= self.bits:
                break
            unread += 1
        ended = course.finished and measured[-1]["step"] >= course.total
        if not unread or not (ended or (unread > 1 and course.late)):
            return
        evidence = self.evidence(course, measured[-1], measured[-unread])
        if early := too_early(course) if ended else "":
            yield self.finding(f"{evidence}. No error: {early}", "warning" if self.never_read(measured) else "note")
        elif rising := bits_rise(course):
            yield self.finding(f"{evidence}; but {rising}", "warning")
        else:
            yield self.finding(evidence, "error" if ended else "warning")

    def never_read(self, measured: Sequence[Line]) -> bool:
        """Whether at the last evaluations, and they are several, the source bits may have been none."""
        last = measured[-self.looks :]
        return len(last) == self.looks and all(line["source_bits_ci95"][0] <= 0 for line in last)

    def evidence(self, course: Course, last: Line, first: Line) -> str:
        """Since when source bits are low, while the loss fell."""
        said = (
            f"source bits are {last['source_bits']:.3f} (95 % interval to {last['source_bits_ci95'][1]:.3f}) at step "
            f"{last['step']}, below {self.bits} since step {first['step']}, while the loss went from "
            f"{course.losses[0]:.2f} to {course.losses[-1]:.2f}"
        )
        entropy = course.target_entropy
        return f"{said}; tokens' frequencies alone give {entropy:.2f}" if entropy else said
