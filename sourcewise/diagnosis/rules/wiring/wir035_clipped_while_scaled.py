import math
import statistics

from sourcewise.diagnosis.observed import Observed
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

LARGER = Cure(
    "Clip to a norm that few steps have, of 1 to 5; with SGD it limits every step:",
    "torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)",
)


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
    depend on the size of gradients. Of a loss that is not scaled an error, where an optimizer that is no Adam gets less
    than {left} of the gradients, and its step moves weights by less than {tiny} of their size.
    """

    code, name, level, rank = "WIR035", "clipping leaves next to nothing of the gradients", "error", 1.15
    explained_by = "WIR001 WIR030"
    explains = "TRN003..TRN009 WIR014 OUT00* SRC*"
    scaled, left, over = 16, 0.02, 16
    tiny = 1e-4  # of the weights, that a step moves
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
        if scale < self.scaled:
            yield from self.of_small_clip(observed)
            return
        if self.left <= share <= self.over:
            return
        level = "warning" if observed.gradients.adaptive else "error"
        evidence = (
            f"backward() is called on {scale:,.4g} times the loss, and {kept:.2g} of its gradients is left where "
        )
        evidence += f"the optimizer takes them, {share:.2g} of those of the loss itself: "
        why = "clipped before they are divided" if share < self.left else "not divided again"
        yield self.finding(f"{evidence}{why}", level)  # type: ignore[arg-type]

    def of_small_clip(self, observed: Observed) -> Findings:
        """Of a loss that is not scaled: a norm so small that steps of an optimizer which heeds sizes move nothing."""
        kept = observed.gradients.kept
        weights = observed.step.weights if observed.step is not None else ()
        moved = [w.update / w.value for w in weights if w.matrix and w.update > 0 and w.value > 0]
        if observed.gradients.adaptive or kept >= self.left or not moved or statistics.median(moved) >= self.tiny:
            return
        evidence = f"{kept:.2g} of the gradients that come is left where the optimizer takes them, and a step moves "
        evidence += (
            f"weights by {statistics.median(moved):.1e} of their size: they are clipped to a norm that is too small"
        )
        yield self.finding(evidence, None, LARGER)
