from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class LabelsBeyondTheEnd(Rule[Wiring]):
    """Rows of labels whose first end of text is followed by a token that counts and is neither padding nor another end,
    such as the code of a language.
    ## Why that is bad
    Whatever stands behind the end is never generated, since outputs stop there. A language code that is to begin the
    target is then learned at the wrong end: the model cannot be told which language to speak.
    ## Threshold and its origin
    Error from {error:words} of the rows. Healthy sets have none: a text has one end, and it is last.
    """

    code, name, level = "WIR024", "labels go on after the end of text", "error"
    explained_by = "WIR001"
    error = 0.5  # of the rows
    explains = "OUT00* TRN011"
    cures = Cure(
        "Encode targets as targets: tokenizer(text_target=…), with src_lang and tgt_lang set first; old tokenizers of"
        " NLLB and M2M100 (legacy_behaviour=True) put the code behind the end. The order is: language, text, end."
    )

    def check(self, wiring: Wiring) -> Findings:
        labels = wiring.labels
        if labels is not None and labels.beyond >= self.error * labels.rows:
            yield self.finding(f"{labels.beyond} of {labels.rows} rows have a label behind their first end of text")
