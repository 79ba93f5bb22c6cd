import math

from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class ClippedWhileScaled(Rule[Wiring]):
    """In a training in plain PyTorch, by what the loss is multiplied before backward(), found by the gradient at the
    outputs; and how much of a gradient that came is left where the optimizer takes it.
    ## Why that is bad
    Half precision multiplies the loss by thousands (a GradScaler), clips and then divides in the wrong order: what is
    clipped to 1 and divided afterwards is next to nothing. SGD then stands still; Adam's epsilon takes over. Not
    divided at all, every step is thousands of times too large, and clipping hides it.
    ## Threshold and its origin
    A loss that is multiplied by {scaled} or more, and gradients of which less than {left} is left once that is taken
    out, or more than {over} times as much as there should be. An error; a warning with an Adam, whose steps hardly
    depend on the size of gradients.
    """

    code, name, level, rank = "WIR035", "gradients are clipped while they are scaled", "error", 1.15
    explained_by = "WIR001 WIR030"
    explains = "TRN003..TRN009 WIR014 OUT00* SRC*"
    scaled, left, over = 16, 0.02, 16
    cures = Cure(
        "Unscale first, then clip:",
        "scaler.scale(loss).backward()",
        "scaler.unscale_(optimizer)",
        "torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)",
        "scaler.step(optimizer)",
        "scaler.update()",
    )

    def check(self, wiring: Wiring) -> Findings:
        observed = wiring.observed
        if observed is None or not math.isfinite(observed.scale * observed.gradients.kept):
            return
        scale, kept = observed.scale, observed.gradients.kept
        share = kept * scale  # of the gradient of the loss as it is
        if scale < self.scaled or self.left <= share <= self.over:
            return
        level = "warning" if observed.gradients.adaptive else "error"
        evidence = (
            f"backward() is called on {scale:,.4g} times the loss, and {kept:.2g} of its gradients is left where "
        )
        evidence += f"the optimizer takes them, {share:.2g} of those of the loss itself: "
        why = "clipped before they are divided" if share < self.left else "not divided again"
        yield self.finding(f"{evidence}{why}", level)  # type: ignore[arg-type]
