from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class EndNotLearned(Rule[Wiring]):
    """Rows without an end of text among their labels; and whether the loss that training sums leaves it out.
    ## Why that is bad
    What is never a label is never said: every output runs to its length limit.
    ## Threshold and its origin
    Warning where more than {warning:words} of the rows have none, error from {error:words}, or where the loss is that
    without it. Here every target ends with it, cut ones too.
    """

    code, name, level = "WIR009", "the end of text is not learned", "error"
    explained_by = "WIR008"
    warning, error = 0.1, 0.5  # of the rows
    cures = Cure(
        "The tokenizer must end a target with the id the network calls the end of text (eos_token_id). Where "
        "padding and the end of text share an id, masking by id masks both: mask by length."
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.unlabelled:
            yield self.finding(f"no label of {wiring.unlabelled} rows counts: all are {IGNORED}")
        labels = wiring.labels
        if labels is not None and labels.rows - labels.ended > self.warning * labels.rows:
            level = self.from_on((labels.rows - labels.ended) / labels.rows)
            yield self.finding(f"{labels.ended} of {labels.rows} rows of labels hold the end of text", level)
        elif loss := next((loss for loss in wiring.losses if loss.fault == "end"), None):
            yield self.finding(loss.evidence)
