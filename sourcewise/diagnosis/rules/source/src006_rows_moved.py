from sourcewise.diagnosis.moved import Moved
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class RowsMoved(Rule[Moved]):
    """The nats of a set's target tokens by a network whose weights were trained, and by the same with the rows of a
    table moved by one or two: positions of the encoder and decoder, embeddings, the output layer.
    ## Why that is bad
    Each position or token is then read as its neighbour. Conversions do this: some tables of positions begin with two
    rows that no position has (fairseq, BART), some vocabularies count from 1, or have one special token more.
    ## Threshold and its origin
    Tried where a token costs {poor} nats or more. A table whose moved rows take away {gained:%} of the loss and {least}
    nats or more: no healthy table gets better by that.
    """

    code, name, level, rank = "SRC006", "the rows of a table are moved", "error", 0.01
    explains = "OUT00* OUT01* SRC* MEM* ATT* TRN011"
    poor, gained, least = 0.5, 0.3, 0.3  # nats, of the loss, nats
    cures = Cure(
        "Move the rows back where the weights are converted, and compare the logits of one example with those of the "
        "program that trained them:",
        "table.weight.copy_(table.weight.roll(rows, 0))",
    )

    def check(self, moved: Moved) -> Findings:
        if not moved.trained or moved.usual < self.poor:
            return
        table, rows, nats = moved.best
        if moved.usual - nats >= max(self.least, self.gained * moved.usual):
            said = f"a target token costs {moved.usual:.2f} nats, and {nats:.2f} with the rows of {table}"
            yield self.finding(f"{said} moved by {rows:+d}")
