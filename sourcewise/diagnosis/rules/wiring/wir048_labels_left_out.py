from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class LabelsLeftOut(Rule[Wiring]):
    """How many words of the targets, in a training in plain PyTorch, get no gradient in any step that is looked at: the
    loss leaves them out, although they are no padding.

    ## Why that is bad
    What no loss asks for is not learned. A mask that is the wrong way round lets padding count and words not; an index
    takes the last place, or the first example of the batch, alone; weights of classes of 0 leave a word out for ever.

    ## Threshold and its origin
    The least share of {steps:words} steps and more: from {warning:%} a warning, from {error:%} an error. Healthy
    trainings leave none out. The first label of each row is not counted, since it may be a start token, nor is one
    that the batch marks as ignored, which is left out on purpose.
    """

    code, name, level, rank = "WIR048", "labels are left out of the loss", "error", 1.32
    warning, error, steps = 0.15, 0.4, 2  # of the labels; steps looked at
    explained_by = "WIR001"
    explains = "WIR008 WIR009 WIR045 TRN003..TRN005 TRN010 TRN011 OUT00* OUT018 SRC*"
    cures = Cure(
        "Let every label count but those of padding, of all rows and all places:",
        "losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction='none')",
        "mask = (labels != pad).flatten()  # true where a label counts, not where padding stands",
        "loss = losses[mask].mean()",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        seen = wiring.observed.uncounted if wiring.observed is not None else None
        if seen is not None and seen.steps >= self.steps and (level := self.from_on(seen.share)):
            evidence = f"of {seen.of} labels of a batch that are no padding {seen.left} have no gradient, and so it was"
            yield self.finding(f"{evidence} in {seen.steps} steps looked at", level)
