from sourcewise.diagnosis.outputs import RAMBLING, Outputs, at_least
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class EndlessOutputs(Rule[Outputs]):
    """The share of outputs that reached the length limit without an end of text.
    ## Why that is bad
    They are cut, not finished: BLEU counts the surplus as errors, and generation takes as long as it can.
    ## Threshold and its origin
    Warning from {warning} %, error from {error} %, a note from {note} %: the bounds of repetition (OUT004), which is
    what most outputs that do not end have come to, held against the same interval. Where those that reached it (all
    outputs, where it is not known which) have less than {rambling} times their references' characters the limit is too
    low rather than the outputs endless: at most a warning.
    """

    code, name, level, rank = "OUT007", "endless outputs", "error", 4.1
    explained_by = "DAT007 DAT016..DAT018 WIR009 WIR020 TRN014 SRC001 OUT001 OUT004"
    warning, error, note = 10, 30, 5  # percent of the outputs
    rambling = RAMBLING
    cures = Cure(
        "The end of text was not learned: check that the tokenizer ends every target with it, that -100 covers "
        "padding and not the end of text (where both share an id, masking by id masks both), and that targets "
        "are not cut in training:",
        {"data.max_target": 256},
    )

    def check(self, outputs: Outputs) -> Findings:
        share, examples = outputs.figures["unfinished_pct"], len(outputs.rows)
        level = self.from_on(at_least(share, examples)) or ("note" if share >= self.note else None)
        if level is None:
            return
        evidence = f"{share:.1f} % of {examples} outputs reached the length limit"
        evidence += f"; outputs have {outputs.longer:.2f} times the references' characters"
        if outputs.longer >= self.rambling:
            yield self.finding(evidence, level)
        else:
            cure = Cure("The limit is lower than these targets need: raise it.", {"generation.max_new_tokens": 256})
            yield self.finding(evidence, "warning" if level == "error" else level, cure)
