from sourcewise.diagnosis.outputs import Outputs, share_of
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class EmptyOutputs(Rule[Outputs]):
    """The share of outputs without any word, beyond the share of references that are empty too.
    ## Why that is bad
    The model ends the text at once: the end of text is the likeliest first token for those sources.
    ## Threshold and its origin
    Warning from {warning} %, error from {error} %, both in points above the references' own share. Ours: in a set of
    200 a warning takes 4 empty outputs, more than a stray one.
    """

    code, name, level, rank = "OUT006", "empty outputs", "error", 0.1
    explained_by = "SRC001 TRN001..TRN005 TRN009 TRN011 TRN013"
    warning, error = 2, 20  # percent, above the references' own
    cures = Cure(
        "Check that empty targets are not in the training set, that labels are shifted once and that the "
        "decoder starts with the token it was trained with (decoder_start_token_id). Beam search favours short "
        "outputs; to bar the end of text for the first tokens or favour longer ones:",
        {"generation.min_new_tokens": 2, "generation.length_penalty": 1.2},
    )

    def check(self, outputs: Outputs) -> Findings:
        empty = share_of(not output for output in outputs.outputs)
        if level := self.from_on(empty - share_of(not reference for reference in outputs.references)):
            yield self.finding(f"{empty:.1f} % of {len(outputs.outputs)} outputs are empty", level)
