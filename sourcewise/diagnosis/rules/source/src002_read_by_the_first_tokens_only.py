from sourcewise.diagnosis.measures.reading import FEWEST, MEASURED, MOST, OPEN, said
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained
from sourcewise.evaluation.verdict import SOURCE_BITS


class ReadByTheFirstTokensOnly(Rule[Trained]):
    """Source bits of the first {first} tokens of the targets, and of those after them, with 95 % intervals over up to
    {most} examples.
    ## Why that is bad
    The decoder takes a hint of the source to begin with and then goes on by itself: fluent outputs that begin right and
    end as targets usually do.
    ## Threshold and its origin
    The upper end of the later tokens' interval is below {bits} bits and {share:words} of the first ones' lower end,
    while the later ones' loss is {loss} nats or more: there is something left to read. {measured}: at least 0.36 of the
    first ones' bits, but in conversations, whose replies are certain (0.02 nats) after their beginning.
    """

    code, name, level = "SRC002", "source read by the first tokens only", "warning"
    explained_by = "DAT003 DAT017 MEM001 MEM002 ATT001 ATT002 WIR006 WIR007 WIR019"
    first, most, measured = 3, MOST, MEASURED
    bits, share = SOURCE_BITS, 0.1  # a token, and of the first ones' bits
    loss = OPEN
    cures = (
        Cure(
            "Make the target's own past worth less, so that the source is worth more:",
            {"train.word_dropout": 0.2, "train.scheduled_sampling": "linear"},
        ),
        Cure(
            "With features, positions and an aligning loss:", {"model.decoder_positions": True, "train.ctc_weight": 0.5}
        ),
    )

    def check(self, trained: Trained) -> Findings:
        gains = trained.gains
        if gains is None:
            return
        first, later = gains.bits(gains.places < self.first), gains.bits(gains.places >= self.first)
        if len(later.tokens) < FEWEST or later.loss < self.loss:
            return
        read, unread = first.ci95()[0], later.ci95()[1]
        if read >= self.bits and unread < min(self.bits, self.share * read):
            evidence = f"the first {self.first} tokens gain {said(first)}, those after them {said(later)}"
            yield self.finding(f"{evidence}, though their loss is {later.loss:.2f} nats")
