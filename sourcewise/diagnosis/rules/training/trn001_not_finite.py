from sourcewise.diagnosis.course import Course, Line
from sourcewise.diagnosis.rule import Cure, Findings, Rule

LARGEST = 65_504  # of float16
HALF = Cure(
    "T5 and its kin overflow in float16: train in bf16, which has the range of fp32, or in fp32. Where it must be fp16,"
    " keep the weights in fp32 and scale the loss (torch.amp.GradScaler).",
    {"train.precision": "fp32"},
)


class NotFinite(Rule[Course]):
    """Whether the loss of a step, the norm of its gradient and the weights after it are finite numbers. Where one is
    not, the tensor, the frame of features, or the part of the network that overflows is named. In a Trainer the weights
    are looked at after such a step, at each evaluation and at the end. What is in half precision is named beside.
    ## Why that is bad
    A NaN is in every weight after the next step. Our own training stops before that, and its last state is kept.
    Hugging Face's Trainer goes on, and logs 0.0 or the mean of the steps before (logging_nan_inf_filter): what it
    trains from there on is lost. A batch of which no label counts has no loss to speak of, and does no harm where its
    gradient is finite.
    ## Threshold and its origin
    Any at all. Steps that fp16's loss scaling leaves out are not counted. In a Trainer the course is then judged by
    what came before, and a network of such weights is looked at no longer.
    """

    code, name, level = "TRN001", "not finite in training", "error"
    explained_by = "DAT001 DAT013 DAT014 WIR001 WIR002 WIR014 TRN009 TRN002"
    cures = Cure(
        "Where norms grew before, a lower rate or a longer warm-up; where they did not, look at that batch's "
        "data; with bf16, try fp32 once.",
        {"train.learning_rate": 3e-4, "train.warmup_steps": 1000},
        {"train.precision": "fp32"},
    )

    def check(self, course: Course) -> Findings:
        line = course.stopped or course.not_finite
        if line is None:
            return
        evidence = f"at step {line['step']} {line.get('why') or what_is_not_finite(line)}"
        if line.get("unlabelled"):
            evidence += f"; of the {line['unlabelled']} rows of its batch no label counts: all are -100"
        if line.get("times", 1) > 1:
            evidence += f"; {line['times']} such steps so far"
        before = [n for n in course.train[-3:] if n.get("gradient_norm") is not None and n["step"] < line["step"]]
        if before:
            norms = ", ".join(f"{n['gradient_norm']:.2g} at step {n['step']}" for n in before)
            evidence += f"; the norm before: {norms}"
        cures = [Cure(line["cure"])] if line.get("cure") else []
        if half := course.plan.half:
            evidence, cures = f"{evidence}; {half}: half precision (fp16) ends at {LARGEST:,}", [HALF, *cures]
        yield self.finding(evidence, None, *cures)


def what_is_not_finite(line: Line) -> str:
    """The figures and tensors of a step that are not finite, in words."""
    names = {"loss": "the loss is", "gradient_norm": "the norm of its gradient is"}
    figures = {said: line[key] for key, said in names.items() if key in line}
    values = {said: "not finite" if value is None else f"{value:.3g}" for said, value in figures.items()}
    said = [", ".join(f"{name} {value}" for name, value in values.items())] if values else []
    tensors = [what for what in ("weights", "gradients", "moments") if line.get(what)]
    said += [f"not finite are the {what} {line[what]}" for what in tensors]
    return "; ".join([*said, *([line["lost"]] if line.get("lost") else [])])
