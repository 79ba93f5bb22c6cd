from collections.abc import Sequence

from sourcewise.diagnosis.course import Course, Line, middle
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.rule import Cure, Findings, Rule

RIGHT = ("tokens_right_pct", "exact_match_pct")  # in percent
FIGURES = ("bleu", "wer", "exact_match_pct", "chrf")  # of outputs


class OverFitting(Rule[Course]):
    """The validation loss after its lowest evaluation, while the training loss goes on falling; and both at the end.
    ## Why that is bad
    From there on the training set is learned by heart; the time is lost, and the last checkpoint is worse.
    ## Threshold and its origin
    A rise of {rise:%} and of {nats} nats, at least {after:words} evaluations after the lowest; a note where the figure
    that picks the best checkpoint (BLEU, where that is the loss) still got better afterwards, which is healthy. Also a
    validation loss of {apart:words} times the training loss, and {above} nats above it; a note likewise. A note,
    too, where {right:%} of what is said is right. Ours; in healthy trainings with dropout the training loss is the
    higher one.
    """

    code, name, level = "TRN010", "over-fitting", "warning"
    explained_by = "DAT018 WIR020 DAT003 DAT010 DAT015"
    rise, nats, after = 0.1, 0.1, 2  # of the loss, in nats, and evaluations after the lowest
    right = 0.95  # of what is said
    apart, above = 3, 0.5  # times the training loss, and nats above it
    cures = (
        Cure(
            "More data, or less to learn it by heart with; checkpoints/best is from before, so nothing is lost but "
            "time:",
            {"model.dropout": 0.3, "train.label_smoothing": 0.1},
            instead="More data, less to learn it by heart with, or the best checkpoint instead of the last:",
        ),
        Cure(
            "Of features, or of texts, each example anew every time:",
            {"train.augment.time_masks": 2, "train.augment.frequency_masks": 2},
            {"train.text_noise.drop": 0.1, "train.text_noise.swap": 0.1},
        ),
    )

    def check(self, course: Course) -> Findings:
        lines = [line for line in course.evaluations if line.get("loss") is not None and not line.get("averaged")]
        if course.broken or len(lines) <= self.after or not course.train:
            return
        losses = [float(line["loss"]) for line in lines]
        learnt = middle([line["loss"] for line in course.train[-3:]])
        place, name = losses.index(min(losses)), judged_by(lines, course.plan.best)
        best = best_of(lines, name)
        rise = losses[-1] / max(losses[place], 1e-9) - 1
        known = [float(lines[-1][key]) for key in RIGHT if lines[-1].get(key) is not None]
        good = bool(known) and min(known) >= 100 * self.right  # what it is unsure of, it says rightly all the same
        level: Level = "note" if (best > place and rise >= self.rise) or good else "warning"
        if losses[-1] >= self.apart * learnt and losses[-1] - learnt >= self.above:
            evidence = f"at step {lines[-1]['step']} the validation loss is {losses[-1]:.3f} nats, the training loss "
            still = f"; {name} was best at step {lines[best]['step']}" if level == "note" else ""
            yield self.finding(f"{evidence}{learnt:.3f}{still}", level)
            return
        after = [line["loss"] for line in course.train if line["step"] > lines[place]["step"]]
        before = [line["loss"] for line in course.train if line["step"] <= lines[place]["step"]]
        late = place < len(losses) - self.after and rise >= self.rise and losses[-1] - losses[place] >= self.nats
        if not late or not before or not after or middle(after[-3:]) > middle(before[-3:]):
            return  # where both rise, that is no over-fitting
        learnt_before, learnt = middle(before[-3:]), middle(after[-3:])
        evidence = (
            f"the validation loss was lowest at step {lines[place]['step']}, {losses[place]:.3f} nats, and is "
            f"{losses[-1]:.3f} at step {lines[-1]['step']}, while the training loss went from {learnt_before:.3f} to "
            f"{learnt:.3f}; {name} was best at step {lines[best]['step']}"
        )
        yield self.finding(evidence, level)


def judged_by(lines: Sequence[Line], best: str) -> str:
    """The figure of outputs that says whether a training still got better; the loss where none was measured."""
    return best if best != "loss" else next((n for n in FIGURES if lines[-1].get(n) is not None), best)


def best_of(lines: Sequence[Line], name: str) -> int:
    """Which evaluation did best by this figure; the last, where it was not measured."""
    sign = 1.0 if name in ("loss", "wer") else -1.0
    known = [(sign * float(line[name]), i) for i, line in enumerate(lines) if line.get(name) is not None]
    return min(known)[1] if known else len(lines) - 1
