from sourcewise.diagnosis.measures.first_step import layers
from sourcewise.diagnosis.measures.wiring import MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class VanishingGradients(Rule[Wiring]):
    """The gradient of each layer for one batch (root mean square over its weights, in nats per target token, after
    clipping), from the first to the last of a stack.
    ## Why that is bad
    Layers whose gradient drowns do not learn; with them, the source does not get through. Saturating activations
    (sigmoid, tanh) lose a factor of 4 and more a layer (Glorot & Bengio 2010).
    ## Threshold and its origin
    Error below {epsilon}, and {drowned:words} of the largest layer's: AdamW divides by the gradient's root mean square
    plus its epsilon of {epsilon}, below which updates shrink with it. Warning where a layer has less than
    {drowned:words} of the largest of its own stack. In a loop of one's own only where it is so from the first step on.
    {measured}: 6e-6 and more, and within a stack at least a tenth (30 GRU layers).
    """

    code, name, level, rank = "WIR013", "vanishing gradients", "error", 10.1
    explained_by = "WIR001 WIR002"
    implied_by = "WIR002 WIR004 WIR012 WIR026:error"
    epsilon, drowned, measured = 1e-8, 1e-4, MEASURED  # of AdamW, and of the largest layer's gradient
    cures = Cure(
        "Fewer layers, ones with residuals and norms, or attention past them.",
        {"model.encoder_layers": 2, "model.decoder_layers": 2},
        {"model.family": "t5"},
        {"model.attention": "bahdanau"},
    )

    def check(self, wiring: Wiring) -> Findings:
        stacks = layers(wiring.step.weights) if wiring.step is not None else {}
        began = layers(wiring.observed.first) if wiring.observed is not None else {}
        largest = max((max(stack) for stack in stacks.values()), default=0.0)
        for name, stack in stacks.items():
            least = min(stack)
            drowned = least < min(self.epsilon, self.drowned * largest)
            if max(stack) and began.get(name) and min(began[name]) >= self.drowned * max(began[name]):
                continue  # they came at first: what has become of them is the rate's doing (TRN009)
            if max(stack) and (drowned or least < self.drowned * max(stack)):
                evidence = f"layer {stack.index(least)} of {name} has a gradient of {least:.1e}"
                evidence += f", layer {stack.index(max(stack))} of the {len(stack)} one of {max(stack):.1e}"
                yield self.finding(evidence, "error" if drowned else "warning")
                return
