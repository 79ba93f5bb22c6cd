import math

from sourcewise.diagnosis.rule import Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class NotFiniteValues(Rule[Wiring]):
    """
    ## What it measures
    Whether the logits of one batch are finite numbers.

    ## Why that is bad
    One NaN or infinity becomes a NaN in every weight with the first step.

    ## Threshold and its origin
    Any at all. It is measured in fp32: what overflows there overflows everywhere.

    ## What to do
    Look for NaN or infinities in the features (a standard deviation of zero, the logarithm of zero), then for
    pretrained weights that were saved after a diverged training. T5 overflows in fp16: train in bf16.
        --train.precision fp32
    """

    code, name, level = "WIR001", "values that are not finite", "error"

    def check(self, wiring: Wiring) -> Findings:
        if not wiring.all_paths.finite:
            yield self.finding(f"the logits of {len(wiring.batch)} examples are not all finite numbers")
            return
        step = wiring.any_step
        if step is not None and not math.isfinite(step.norm):
            yield self.finding(f"the norm of the first gradient is {step.norm}, the loss {step.loss:.3g}")
