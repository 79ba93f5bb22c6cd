import math

from sourcewise.diagnosis.measures.wiring import SAME_LOSS
from sourcewise.diagnosis.observed import Observed
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

MEAN = Cure(
    "Divide by the number of labels that count:",
    "loss = (losses * mask).sum() / mask.sum()",
)


class PaddingCounts(Rule[Wiring]):
    """Rows whose first end of text is followed by a label that is padding or the end again; and whether the loss that
    training sums is that of the labels with padding counted.
    ## Why that is bad
    Most of the loss is then the padding's, which is learned in no time: the loss looks good, depends on the batch size,
    and hides what the targets do.
    ## Threshold and its origin
    {share:Words} of the rows (healthy sets have none: a text has one end), or a loss that is the same to {same}. In a
    loop of one's own {repeated:words} of the rows, that end with the same label twice, where it has a gradient; and, as
    a warning, a loss that is the nats of the labels that count, divided by the number of all, to
    {same_mean:%}, in {steps:words} steps and more, where at most {fewer:%} count.
    """

    code, name, level = "WIR008", "padding counts as target", "error"
    explained_by = "WIR001"
    share, same, repeated = 0.5, SAME_LOSS, 0.2  # of the rows, of a loss, and of the rows
    same_mean, fewer, steps = 0.003, 0.95, 3  # of the loss; labels that count, of all; looked at
    cures = Cure(
        "Labels of padded positions are -100, and only those: by length, not by id, where padding and end share one."
    )

    def check(self, wiring: Wiring) -> Findings:
        edges = wiring.observed.edges if wiring.observed is not None else None
        if edges is not None and edges.pads and edges.repeated >= self.repeated * edges.rows:
            evidence = f"{edges.repeated} of {edges.rows} targets end with the same label twice and more, and it counts"
            if edges.pads < edges.labels:
                evidence += f"; in a batch {edges.pads} of {edges.labels} labels that count are padding"
            yield self.finding(evidence)
        if wiring.observed is not None:
            yield from self.of_mean(wiring.observed)
        if wiring.plan is not None and wiring.plan.other_loss:
            raise CannotTell("whether padding counts as target", wiring.plan.other_loss)
        labels = wiring.labels
        padded = labels is not None and labels.padded >= self.share * labels.rows
        if labels is not None and padded:
            yield self.finding(f"{labels.padded} of {labels.rows} rows have labels that count behind their end of text")
        if labels is not None and labels.holes:
            evidence = (
                f"{labels.holes} of {labels.rows} rows have a position that does not count (-100) before one that"
            )
            yield self.finding(f"{evidence} does", "warning")
        elif not padded and (loss := next((loss for loss in wiring.losses if loss.fault == "padding"), None)):
            yield self.finding(loss.evidence)

    def of_mean(self, observed: Observed) -> Findings:
        """Whether the loss is averaged over padding, too."""
        tokens, places = observed.tokens, observed.places
        shares = [(loss, real) for loss, real in observed.shares if real <= self.fewer and math.isfinite(loss)]
        if len(shares) < self.steps or not 0 < tokens <= self.fewer * places:
            return
        # A smoothed loss is the same by chance in one step; not in all.
        if all(abs(loss - real) <= self.same_mean * real for loss, real in shares):
            evidence = (
                f"the loss is {observed.loss:.3g}: that of the {tokens} labels that count ({observed.nats:.3g} nats "
                f"each) divided by all {places}, padding among them; so in {len(shares)} steps looked at"
            )
            yield self.finding(f"{evidence}; it falls with the length of the batch's longest target", "warning", MEAN)
