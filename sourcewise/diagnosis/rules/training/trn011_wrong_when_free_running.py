import math

from sourcewise.diagnosis.course import MEASURED, Course
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class WrongWhenFreeRunning(Rule[Course]):
    """The share of outputs that are exactly right, beside the share that the validation loss promises: targets of T
    tokens at L nats per token have the probability exp(-L T) each on average, or more (Jensen), and free running draws
    from the same probabilities.
    ## Why that is bad
    The loss is measured with the true words before each word. If outputs are far worse than it promises, generation
    does not do what training did: another start token, a mask that lets the future be seen, labels shifted otherwise, a
    limit on length.
    ## Threshold and its origin
    Fewer than {warning:words} of what is promised a warning, fewer than {error:words} an error; and fewer by more than
    {deviations:words} standard deviations, and by {points:points} points. {measured}: never below what is promised.
    """

    code, name, level, rank = "TRN011", "low loss, but wrong free-running outputs", "error", 1.1
    explained_by = "DAT006 DAT007 WIR006..WIR010 WIR021"
    warning, error = 0.5, 0.25  # of what is promised
    deviations, points = 4, 0.05
    measured = MEASURED
    cures = (
        Cure(
            "Compare how decoder inputs are made in training and in generation, and look at the length limit:",
            {"generation.max_new_tokens": 256},
        ),
        Cure(
            "Where both are the same, and only long outputs fail, feed the decoder its own words while it learns:",
            {"train.scheduled_sampling": "linear"},
        ),
    )

    def check(self, course: Course) -> Findings:
        line = course.evaluations[-1] if course.evaluations and course.stopped is None else {}
        if any(line.get(key) is None for key in ("loss", "exact_match_pct", "target_tokens", "examples")):
            return
        examples, exact = int(line["examples"]), float(line["exact_match_pct"]) / 100
        length = line["target_tokens"] / examples
        expected = math.exp(-line["loss"] * length)
        chance = self.deviations * math.sqrt(expected * (1 - expected) / examples)
        if exact >= self.warning * expected or expected - exact < max(chance, self.points):
            return
        evidence = (
            f"at step {line['step']} a target of {length:.1f} tokens has {line['loss']:.3f} nats per token: by that "
            f"{100 * expected:.0f} % of {examples} outputs or more should be exactly right, {100 * exact:.1f} % are"
        )
        yield self.finding(evidence, "error" if exact < self.error * expected else "warning")
