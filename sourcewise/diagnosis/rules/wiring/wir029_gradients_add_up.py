from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class GradientsAddUp(Rule[Wiring]):
    """How large the gradient is that already lies at a weight when that of a new batch arrives, in a training in plain
    PyTorch whose optimizer steps with every batch; beside the new one.
    ## Why that is bad
    backward() adds to what is there. Without zero_grad() each step goes along the sum of all gradients so far: it no
    longer follows the loss, overshoots, and swings, although no figure of a single batch is wrong.
    ## Threshold and its origin
    More than {left:%} of the new gradient's size: a loop that sets gradients to zero leaves nothing at all. Several
    batches to a step, whose gradients are meant to add up, are not judged.
    """

    code, name, level, rank = "WIR029", "gradients are never set to zero", "error", 1.35
    explained_by = "WIR001"
    explains = "WIR014 TRN001..TRN005 TRN007..TRN009 OUT00* SRC*"
    left = 0.01  # of the gradient that arrives
    cures = Cure("Set them to zero once a step, before backward() or behind the step:", "optimizer.zero_grad()")

    def check(self, wiring: Wiring) -> Findings:
        seen = wiring.observed
        if seen is not None and seen.gradients.left > self.left:
            evidence = "the gradient of a batch arrives where one of earlier steps lies still, "
            yield self.finding(f"{evidence}{seen.gradients.left:.3g} times as large; the optimizer steps each time")
