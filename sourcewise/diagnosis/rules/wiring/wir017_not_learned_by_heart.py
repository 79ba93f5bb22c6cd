import math

from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

LITTLE = 0.5  # nats per target token: what is nearly certain needs no learning


class NotLearnedByHeart(Rule[Wiring]):
    """The loss of a copy that is trained on {examples:words} examples for up to {steps} steps at 3e-3, without dropout,
    beside the entropy of the frequencies of their own target tokens. Not tried where it would take more than seconds.
    ## Why that is bad
    What cannot learn {examples:words} examples by heart will not learn a set; and what is wrong is the wiring, not the
    data.
    ## Threshold and its origin
    No less than {stuck:%} of that entropy, and a fall of less than {falling:%} over the last quarter of the steps.
    {measured}: at most 58 % (a BART of width 32), most below 25 %; a width of 16 is slower, and still falls.
    """

    code, name, level = "WIR017", "one batch cannot be learned by heart", "error"
    explained_by = "WIR001..WIR005 WIR007 WIR011..WIR013 WIR016"
    examples, steps = signals.TRIAL_EXAMPLES, signals.TRIAL_STEPS
    stuck, falling = 0.9, 0.05  # of what frequencies alone give, and of the loss over the last quarter
    measured = signals.MEASURED
    cures = Cure(
        "Look at the findings above; if there are none: initialisation, activations, saturated or missing norms."
    )

    def check(self, wiring: Wiring) -> Findings:
        if (inside := wiring.inside) is None:
            return
        network, batch = inside.network, inside.batch
        if signals.trial_flops(network, batch) > signals.TRIAL_FLOPS:
            size = sum(p.numel() for p in network.parameters())
            raise CannotTell("whether it can learn one batch by heart", f"{size:,} parameters take too long for that")
        some = inside.examples.batch(batch.indices[:: max(1, len(batch) // self.examples)])
        trial = signals.learn_by_heart(network, some, inside.learning)
        if trial is None or not math.isfinite(trial.before) or trial.frequencies < LITTLE:
            return
        if trial.after >= self.stuck * trial.frequencies and trial.falling <= self.falling:
            yield self.finding(
                f"{trial.examples} examples, {trial.steps} steps at {signals.TRIAL_RATE:g} without dropout: from "
                f"{trial.before:.2f} to {trial.after:.2f} nats per target token, by {100 * trial.falling:.1f} % over "
                f"the last quarter; their frequencies alone give {trial.frequencies:.2f}"
            )
