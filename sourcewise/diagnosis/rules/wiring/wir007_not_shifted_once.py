from sourcewise.diagnosis.measures.wiring import LEAK, MEASURED, ROUNDED, SAME_LOSS
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

UNFED = (
    Cure("Let the collator make the decoder's input of the labels:", "DataCollatorForSeq2Seq(tokenizer, model=model)"),
    Cure("or put decoder_input_ids, the labels shifted by one behind the start token, into each batch."),
)
ASIDE = (
    Cure(
        "Compare logits and labels as they are, without cutting the last of one and the first of the other: an "
        "encoder-decoder model reads the labels shifted already.",
        "loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())  # not logits[:, :-1] and labels[:, 1:]",
    ),
)


class NotShiftedOnce(Rule[Wiring]):
    """The loss of one batch as training sums it, against the nats that `decode` gives for the same labels when it reads
    the start token and then the labels but the last; and whether labels begin with the start token.
    ## Why that is bad
    Not shifted, the decoder reads the very token it has to say: the loss falls to zero and outputs repeat one token.
    Shifted twice, it learns to say each token a step late, or to skip every other one.
    ## Threshold and its origin
    A relative difference above {same} that feeding the labels unshifted or shifted twice explains, or that nothing
    tried explains. {measured}: at most 2e-7. Autocast (bf16, fp16) is off while it is measured: it alone gives up to
    8e-4. Where layers compute in bf16 or fp16 by themselves: {rounded:words} the step of their numbers at 1. Labels
    that begin with the start token are a note where the tokenizer puts it before every text, as BERT's does with [CLS],
    and they keep their end of text. In a loop of one's own: outputs that move by more than {leak} with the token that
    they say, and not with later ones; or with none of the token before, but with the one before that.
    """

    code, name, level = "WIR007", "labels are not shifted once", "error"
    explained_by = "WIR001 WIR010"
    same, rounded, leak, measured = SAME_LOSS, ROUNDED, LEAK, MEASURED
    cures = Cure(
        "Shift in one place only: labels are the target as it is, with its end of text and without a start "
        "token; the network makes the decoder's input of them."
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.unfed:
            yield self.finding(wiring.unfed, None, *UNFED)
        if wiring.aside:
            yield self.finding(wiring.aside, None, *ASIDE)
        moves = wiring.observed.moves if wiring.observed is not None else None
        if moves is not None and moves.own is not None and moves.own > self.leak >= (moves.future or 0.0):
            evidence = "the decoder reads the very token that it has to say: another one there moves the outputs by "
            yield self.finding(f"{evidence}{moves.own:.2g} of the largest, and none before")
        if moves is not None and moves.skipped:
            evidence = "no output reads the word before the one that it has to say, and each reads the one before that"
            yield self.finding(f"{evidence}: the labels are shifted twice", None, *ASIDE)
        labels = wiring.labels
        if labels is not None and wiring.network is not None and labels.begun == labels.rows:
            evidence = f"all {labels.rows} rows of labels begin with the start token"
            # As BERT2BERT and TrOCR are trained: one more token to say.
            whole = wiring.begins == wiring.network.start_id and labels.ended == labels.rows
            if whole:
                evidence += ", which the tokenizer puts before every text; the outputs are right, a token longer"
            yield self.finding(evidence, "note" if whole else None)
        elif loss := next((loss for loss in wiring.losses if loss.fault == "shift"), None):
            yield self.finding(loss.evidence)
