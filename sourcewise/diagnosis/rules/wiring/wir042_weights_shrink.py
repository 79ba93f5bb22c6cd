import statistics

from sourcewise.diagnosis.observed import Observed
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class WeightsShrink(Rule[Wiring]):
    """In plain PyTorch: the size of the matrices that an optimizer with weight decay steps, beside what it was before
    the first step.
    ## Why that is bad
    A decay that is too strong takes more from the weights than the loss gives, until nothing passes through them. Adam
    adds its decay to the gradient and divides both by their size: what is nothing in AdamW is as much as the gradient
    there.
    ## Threshold and its origin
    Error where the median of the matrices has less than {coupled:%} of its size by a decay that is added to gradients
    (Adam), less than {decoupled:%} by any other. Healthy trainings with a usual decay keep {usual:%}.
    """

    code, name, level, rank = "WIR042", "weights shrink towards zero", "error", 1.5
    coupled, decoupled, usual = 0.5, 0.2, 0.7  # of their size before the first step
    explained_by = "WIR001"
    explains = "WIR013 WIR014 WIR016 TRN003 TRN004 TRN005 TRN009 TRN013 TRN014 OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "A hundredth by AdamW, which shrinks weights beside the gradient and not through it:",
        {"train.weight_decay": 0.01},
    )

    def check(self, wiring: Wiring) -> Findings:
        seen = wiring.observed
        if seen is None or seen.step is None or seen.decay is None:
            return
        left = sizes_left(seen)
        bound = self.coupled if seen.decay.coupled else self.decoupled
        if left and (middle := statistics.median(left)) < bound:
            how = "adds to gradients" if seen.decay.coupled else "has"
            evidence = (
                f"half of {len(left)} matrices have {100 * middle:.0f} % or less of the size that they began with"
            )
            yield self.finding(f"{evidence}; {seen.decay.optimizer} {how} a weight decay of {seen.decay.value:.3g}")


def sizes_left(seen: Observed) -> list[float]:
    """Of each matrix that learns: its size over the one before the first step."""
    began = {weight.name: weight.value for weight in seen.began}
    now = seen.step.weights if seen.step is not None else ()
    matrices = [w for w in now if w.matrix and w.optimised and not w.frozen and began.get(w.name)]
    return [w.value / began[w.name] for w in matrices]
