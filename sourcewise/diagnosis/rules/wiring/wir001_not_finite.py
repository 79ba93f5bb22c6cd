import math

from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class NotFiniteValues(Rule[Wiring]):
    """Whether the logits of one batch are finite numbers.
    ## Why that is bad
    One NaN or infinity becomes a NaN in every weight with the first step.
    ## Threshold and its origin
    Any at all. It is measured in fp32: what overflows there overflows everywhere.
    """

    code, name, level = "WIR001", "values that are not finite", "error"
    cures = Cure(
        "Look for NaN or infinities in the features (a standard deviation of zero, the logarithm of zero), then"
        " for pretrained weights that were saved after a diverged training. T5 overflows in fp16: train in "
        "bf16.",
        {"train.precision": "fp32"},
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.broken:
            half = wiring.plan.half if wiring.plan is not None else ""
            yield self.finding(wiring.broken + (f"; {half}, half precision (fp16)" if half else ""))
        if wiring.batch is not None and not wiring.all_paths.finite:
            yield self.finding(f"the logits of {len(wiring.batch)} examples are not all finite numbers")
            return
        step = wiring.any_step
        if step is not None and not math.isfinite(step.norm):
            yield self.finding(f"the norm of the first gradient is {step.norm}, the loss {step.loss:.3g}")
