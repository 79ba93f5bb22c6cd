from sourcewise.diagnosis.course import EARLY, FELL, FREQUENCIES, PLATEAU, Course, loss_falls, middle
from sourcewise.diagnosis.rule import Cure, Findings, Rule

LINES = 5  # of losses, at least


class TokensFrequenciesAlone(Rule[Course]):
    """The training loss beside the entropy of the target tokens' frequencies: the loss of a model that says frequent
    tokens often and knows neither its source nor the words before.
    ## Why that is bad
    Every network gets there in its first hundred steps, through the output bias or embedding alone.
    ## Threshold and its origin
    At most {known:%} below that entropy, when the weights had time to move by {way} of their size (update ratios added
    up) or {steps} steps are over; an error at the end of the training, before it a warning, from {early:words} of it
    and {plateau} steps on. Digits and dates cross it after 60 to 150 steps; speech rests there for longer.
    """

    code, name, level, rank = "TRN004", "only the tokens' frequencies are learned", "error", 1.2
    explained_by = "DAT013 DAT018 WIR001..WIR003 WIR012..WIR014 WIR016..WIR018 WIR020 TRN003 TRN006 TRN009"
    implied_by = "TRN003"
    learned = True
    known = FREQUENCIES
    way, steps = 0.3, 1000  # of the weights, by their size, and else of the training
    early, plateau = EARLY, PLATEAU
    cures = Cure(
        "The states that reach the output matrix hardly differ: look for vanishing gradients, a rate that is "
        "too high, and dropout.",
        {"train.learning_rate": 3e-4, "model.dropout": 0.1},
    )

    def check(self, course: Course) -> Findings:
        entropy, parts = course.target_entropy, course.parts("update_ratios")
        way = max((course.way(part) for part in parts), default=0.0)
        moved = way >= self.way or course.step >= self.steps
        if course.broken or not course.warm or not entropy or len(course.train) < LINES or not moved:
            return
        recent = middle(course.losses[-3:])
        if not (course.finished or course.late) or recent < (1 - self.known) * entropy:
            return
        if course.finished or not loss_falls(course, FELL):
            evidence = (
                f"{recent:.3f} nats per target token at step {course.step}; knowing how frequent each token is alone"
            )
            yield self.finding(f"{evidence} gives {entropy:.3f}", "error" if course.finished else "warning")
