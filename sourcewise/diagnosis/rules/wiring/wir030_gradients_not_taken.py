from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

ADDED = Cure(
    "Set gradients to zero once a step of the optimizer, not with each batch:",
    "(loss / accumulate).backward()",
    "if (i + 1) % accumulate == 0: optimizer.step(); optimizer.zero_grad()",
)
NEVER = Cure("Step once a batch, behind backward():", "loss.backward()", "optimizer.step()", "optimizer.zero_grad()")


class GradientsNotTaken(Rule[Wiring]):
    """Whether the optimizers of a training in plain PyTorch take steps, and whether these find the gradients that
    backward() makes.
    ## Why that is bad
    The loss is computed, gradients are, and no weight ever moves; or only weight decay moves them.
    ## Threshold and its origin
    {steps} steps of the loop without one of an optimizer, which gradients of several batches added up seldom take; or
    a gradient that came, and an optimizer that stepped with every batch and found none or zeros. A step that fp16's
    loss scaling leaves out is none. Where an optimizer steps once in several batches: {thrown:words} gradients or more
    that were set to zero before it, and {share:words} of those that were looked at.
    """

    code, name, level, rank = "WIR030", "the optimizer does not get the gradients", "error", 1.1
    explained_by = "WIR001"
    explains = "WIR003 WIR012 WIR014 TRN003..TRN006 TRN009 OUT00* SRC*"
    steps = 40  # of the loop
    thrown, share = 3, 0.5  # gradients that no optimizer took, of all that were to be added up
    cures = Cure(
        "The order of a step, with nothing between backward() and step() but clipping:",
        "optimizer.zero_grad()",
        "loss.backward()",
        "optimizer.step()",
    )

    def check(self, wiring: Wiring) -> Findings:
        gradients = wiring.observed.gradients if wiring.observed is not None else None
        if gradients is None:
            return
        if gradients.untaken >= self.steps:
            evidence = f"in {gradients.untaken} steps of the training no optimizer has taken one"
            yield self.finding(f"{evidence}: optimizer.step() is not called, or of another optimizer", None, NEVER)
        elif gradients.erased:
            evidence = "backward() makes gradients, and optimizer.step() finds none"
            yield self.finding(f"{evidence}: they are set to zero in between, or the step comes before backward()")
        elif gradients.thrown[0] >= max(self.thrown, self.share * gradients.thrown[1]):
            gone, of = gradients.thrown
            evidence = (
                f"of {of} gradients that wait for a step of the optimizer {gone} are set to zero before the next "
            )
            yield self.finding(f"{evidence}batch: only the last before a step counts, the others are lost", None, ADDED)
