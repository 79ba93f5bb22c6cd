from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class PaddedOnTheOtherSide(Rule[Wiring]):
    """On which side sources are padded at an evaluation, or by a folder's tokenizer, and on which in training; and the
    nats of a target token as the rows lie, and as they would lie in training.
    ## Why that is bad
    Positions are counted from the left end of a row. Behind padding a source begins at another position in each row,
    where the network has never seen a beginning; a recurrent network reads the padding first.
    ## Threshold and its origin
    Where nats of a token move by more than {moved} on average, an error; measured at 1e-6 where positions are relative
    (T5) or padding moves them along. Of a tokenizer in a folder, whose batches are not seen, a warning where the
    network counts positions.
    """

    code, name, level, rank = "WIR033", "padded on the other side than in training", "error", 5.1
    explained_by = "WIR001 WIR021 WIR032"
    explains = "TRN010 TRN011 OUT00* SRC*"
    moved = 0.01  # nats
    cures = Cure(
        "Pad on one side, for an encoder-decoder the right one, in training, evaluation and generation alike:",
        'tokenizer.padding_side = "right"',
    )

    def check(self, wiring: Wiring) -> Findings:
        laid = wiring.laid
        if laid is None:
            return
        evidence = f"sources of {laid.where} are padded on the {laid.side}, those of the training on the {laid.trained}"
        if laid.nats is None:
            evidence = f"{laid.where} pads sources on the {laid.side}, and this network counts positions from the left"
            yield self.finding(evidence, "warning")
        elif laid.nats[2] > self.moved:
            as_is, other, moved = laid.nats
            evidence += f": a target token costs {as_is:.2f} nats, padded as in training {other:.2f}"
            yield self.finding(f"{evidence} (it moves by {moved:.2g} on average)")
