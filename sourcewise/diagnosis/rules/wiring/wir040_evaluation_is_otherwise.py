from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

ALWAYS = Cure(
    "Switch to evaluation before it, and back:",
    "model.eval()",
    "with torch.no_grad(): ...  # evaluation",
    "model.train()",
)
AGAIN = Cure(
    "Switch back to training behind each evaluation, and at the beginning: from_pretrained() gives a model in eval "
    "mode.",
    "model.train()  # of each module that learns",
)
SEEDED = Cure(
    "Set the seed once, before the training:",
    "torch.manual_seed(0)  # before the loop, not in it",
)
NORMS = Cure(
    "Let norms over batches keep statistics: momentum=0.1, and train() while it trains; only norms that were loaded "
    "with statistics may be frozen by eval(). Or take a norm that has none:",
    "torch.nn.LayerNorm(width)  # or GroupNorm",
)


class EvaluationIsOtherwise(Rule[Wiring]):
    """What eval() changes beside dropout: norms over batches whose running mean is still 0 and variance 1 though the
    network has trained; the nats of a token of one training batch in both modes; and forward passes without gradients
    that are made in training mode.
    ## Why that is bad
    Training then fits one network, and another is evaluated and saved: the loss falls, and outputs are wrong. Causes
    are statistics that never arrive (momentum 0, or a norm in eval() mode from the start), and an `if self.training:`
    around more than noise, such as the scale of embeddings. An evaluation in training mode has dropout in it, and
    norms that read the rest of the batch. A training in eval mode, after an evaluation that did not switch back, has no
    dropout, whatever its configuration says.
    ## Threshold and its origin
    Statistics exactly as they were made are an error. So are {more} nats a token and {times} times as many in eval mode
    as in training mode, twice in succession, from step {settled} on, where the decoder reads its target in both:
    dropout only makes training mode worse. From {passes:words} passes over different batches in training mode, a
    warning; so are {quiet:words} steps in succession, of those that are looked at, in which all dropout was off, and
    {seeded:words} that all began with one state of random numbers, as where a seed is set in each step.
    """

    code, name, level, rank = "WIR040", "evaluation computes otherwise than training", "error", 1.12
    explained_by = "WIR001 WIR021"
    more, times, settled, passes, quiet, seeded = 0.5, 1.5, 30, 3, 3, 4
    explains = "TRN010 TRN011 SRC* MEM* ATT* OUT00*"
    cures = Cure(
        "Look in forward() and in the modules for what heeds eval() and is no noise: an `if self.training:` around a "
        "scale, a mask or a norm."
    )

    def check(self, wiring: Wiring) -> Findings:
        modes = wiring.modes
        if modes is None:
            return
        apart = modes.evaluation - modes.training > self.more and modes.evaluation > self.times * modes.training
        said = f"a token of a training batch has {modes.evaluation:.2f} nats in eval mode, {modes.training:.2f} in "
        said += "training mode"
        if modes.norms:
            evidence = f"after {modes.steps} steps running_mean is 0 and running_var 1 in {', '.join(modes.norms[:3])}"
            yield self.finding(evidence + (f"; {said}" if apart else ""), None, NORMS)
        elif apart:
            yield self.finding(said)
        elif modes.passes >= self.passes:
            evidence = f"{modes.passes} batches in succession passed without gradients, and in training mode"
            yield self.finding(evidence, "warning", ALWAYS)
        elif modes.seeded >= self.seeded:
            evidence = (
                f"the {modes.seeded} steps that were looked at began with one and the same state of random numbers"
            )
            yield self.finding(f"{evidence}: dropout leaves out the same units in each", "warning", SEEDED)
        elif modes.quiet >= self.quiet:
            since = "" if modes.since == 1 else f", since step {modes.since} at the latest"
            evidence = f"training steps are taken in eval mode{since}: a dropout of {modes.dropout:g} is off"
            yield self.finding(f"{evidence} in the last {modes.quiet} that were looked at", "warning", AGAIN)
