from sourcewise.diagnosis.course import ENOUGH, FEW_LINES, LEAST_FALL, SLOW, Course, middle
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.rule import Cure, Findings, Rule

HALF = 0.5  # of the steps, before which the rate has not done its work


WARM = Cure(
    "A lower rate, and a warm-up; deep stacks with norms behind the residuals need both:",
    {"train.learning_rate": 1e-4, "train.warmup_steps": 1000},
    "torch.nn.Transformer(..., norm_first=True)",
)
HIGHER = Cure("A higher rate; from random weights about 1e-3:", {"train.learning_rate": 1e-3})
ALIKE = 1.05  # times the lowest rate: a schedule is at work above
FACTOR = Cure(
    "The schedule's rate may be multiplied with the optimizer's: what a function gives to LambdaLR is a factor, "
    "before which the optimizer's own rate stands:",
    "optimizer = torch.optim.Adam(parameters, lr=1.0)  # where the function returns a learning rate",
)


class UpdatesTooLargeOrSmall(Rule[Course]):
    """How far a step near the peak rate moves the weights, as a share of their size: the median over the tensors of
    each part, and all these steps added up.
    ## Why that is bad
    Steps as large as the weights leave nothing of what was learned before. Steps so small that all of them together
    would not change random weights by a twentieth leave them random.
    ## Threshold and its origin
    Above {warning} a warning, above {error} an error. Too small: from random weights, at the end, a sum below {way} of
    the part that moves most; an error where a step is below {slow}. Measured at a rate of 1e-3 on digits and dates:
    1e-3 to 4e-3 a step, the sum 0.3 after 200 steps. Where the end is not known, such a sum is an error from {long}
    steps on, if the loss has fallen by less than {fall:%} and the rate no longer rises; a warning, if by less than
    {little:%}. Of a model that was loaded a
    warning, after {trial} steps and more: a sum below {moved}, and a loss that was {high} nats or more at first and
    fell by less than {fell:%}. And an error where the gradient of a part has fallen below {gone} of what it was at
    first, while the loss is no lower than {entropy:words} of what the tokens' frequencies give: deep
    stacks without warm-up collapse so, whatever the size of a step.
    """

    code, name, level, rank = "TRN009", "updates too large or too small", "error", 0.1
    explained_by = "WIR003 WIR012 WIR014"
    warning, error = 0.3, 1  # of the weights, in a step
    way, slow = 0.05, SLOW  # of the weights over a whole training, and in a step
    little = 0.3  # of the first loss
    long, fall = 200, LEAST_FALL  # steps of a training whose end is not known; of its first loss
    gone, entropy = 1e-3, 0.9  # of the first gradient; of the target tokens' entropy
    trial, moved, high, fell = 100, 0.1, 1.0, 0.5  # steps; of the weights; nats; of the loss
    cures = Cure("A lower rate; from random weights about 1e-3, fine-tuning about 5e-5:", {"train.learning_rate": 1e-3})

    def check(self, course: Course) -> Findings:
        largest, evidence = course.at_the_peak
        if len(course.train) < FEW_LINES or not largest:
            return
        if collapsed := self.collapsed(course):
            yield self.finding(collapsed, "error", WARM)
            return
        most = max(largest.values())
        if most > self.warning:
            yield self.finding(evidence, "error" if most > self.error else "warning")
            return
        way = max(course.way(name) for name in largest)
        planned = not course.total or course.step < HALF * course.total  # the rate is still to do its work
        if course.stopped is None and not course.fresh and course.finished and way < self.moved:
            yield from self.of_loaded(course, evidence, way)
        if course.stopped is not None or not course.fresh or way >= self.way:
            return
        if not course.total:
            yield from self.of_unknown_end(course, evidence, way)
        if planned:
            return
        if most < self.slow or course.step >= ENOUGH:  # else the number of steps is at fault, not the rate
            evidence += f"; {course.step} of them, all in one direction, by {way:.2g}"
            yield self.finding(evidence, "error" if most < self.slow else "warning", HIGHER)

    def collapsed(self, course: Course) -> str:
        """Which part's gradient has gone while nothing was learned, in words; "" where none has."""
        entropy, last = course.target_entropy, middle(course.losses[-3:])
        if course.broken or not entropy or last < self.entropy * entropy or len(course.train) < 2 * FEW_LINES:
            return ""
        for part in course.parts("gradient_norms"):
            norms = course.values("gradient_norms", part)
            if part == "other" or len(norms) < 2 * FEW_LINES:
                continue
            first, now = float(norms[:FEW_LINES].max()), middle(norms[-FEW_LINES:])
            if first > 0 and now < self.gone * first:
                said = (
                    f"the gradient of {part} had a norm of {first:.1e} at first and has {now:.1e} at step {course.step}"
                )
                rate = course.values("learning_rate")
                said += f", the loss {last:.2f} nats; frequencies alone give {entropy:.2f}: the network has collapsed"
                return f"{said}. The rate was {rate.max():.2g}" if len(rate) else said
        return ""

    def of_unknown_end(self, course: Course, evidence: str, way: float) -> Findings:
        """Of a training whose end nobody told: after so many steps the loss has not fallen, and its rate is no longer
        on its way up.
        """
        first, last, rates = float(course.losses[0]), middle(course.losses[-3:]), course.values("learning_rate")
        half = len(rates) // 2
        if course.step < self.long or last < (1 - self.little) * first or not half:
            return
        if rates[half:].max() > rates[:half].max():
            return
        evidence += f"; {course.step} of them, all in one direction, by {way:.2g}: too small; the loss went from "
        scheduled = (FACTOR,) if rates.max() > ALIKE * rates.min() else ()
        level: Level = "error" if last >= (1 - LEAST_FALL) * first else "warning"
        yield self.finding(f"{evidence}{first:.2f} to {last:.2f} nats", level, HIGHER, *scheduled)

    def of_loaded(self, course: Course, evidence: str, way: float) -> Findings:
        """Of a model that was loaded: its loss was high at the start, and is so at the end."""
        first, last = middle(course.losses[:1]), middle(course.losses[-3:])
        if course.step < self.trial or first < self.high or last < (1 - self.fell) * first:
            return
        evidence += f"; {course.step} of them, all in one direction, by {way:.2g}; the loss went from {first:.2f} to "
        cure = Cure("A higher rate, for T5 1e-4 to 3e-3, or more steps:", {"train.learning_rate": 1e-3})
        yield self.finding(f"{evidence}{last:.2f} nats", "warning", cure)
