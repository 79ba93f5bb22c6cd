from sourcewise.diagnosis.outputs import Outputs, at_least
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class Repetition(Rule[Outputs]):
    """The share of outputs in which a phrase comes 3 times or more in direct succession (or 1 to 8 characters 8 times
    or more), at least 2 times more than any phrase of that length does in the reference.
    ## Why that is bad
    The decoder is caught in a loop: what it has just said makes the same thing likeliest again.
    ## Threshold and its origin
    Warning from {warning} % of the outputs, error from {error} %. Ours; what references repeat themselves is not
    counted. The lower end of the share's one-sided 95 % interval (Wilson 1927) must be there: of 60 outputs 10 for a
    warning, of 1,000 116. A note from {note} %: a training that is not over has some.
    """

    code, name, level = "OUT004", "repetition", "error"
    explained_by = "DAT018 WIR020 TRN014 SRC001 OUT001 OUT002"
    warning, error, note = 10, 30, 5  # percent of the outputs
    cures = Cure(
        "A model that is trained enough seldom loops: train longer first. At generation, beams and blocking "
        "help (not where targets repeat, as digit strings do):",
        {"generation.beams": 4, "generation.no_repeat_ngram": 3},
    )

    def check(self, outputs: Outputs) -> Findings:
        share, examples = outputs.figures["repetition_pct"], len(outputs.rows)
        if level := self.from_on(at_least(share, examples)) or ("note" if share >= self.note else None):
            evidence = f"{share:.1f} % of {examples} outputs repeat themselves where their reference does not"
            yield self.finding(evidence, level)
