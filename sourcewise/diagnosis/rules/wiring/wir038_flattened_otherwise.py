from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class FlattenedOtherwise(Rule[Wiring]):
    """In a training in plain PyTorch: whether the labels that the gradient shows at the outputs, place by place, are a
    target of the batch read row by row where the outputs lie column by column, or the other way about. And whether they
    are its rows in another order, while each source moves the output at its own place.
    ## Why that is bad
    Each output is held to the label of another place, of another example: flattened alike they have the same length,
    and no error shows it. What is learned is the frequency of tokens. Modules that sort targets by length, as for
    packing, and leave their sources as they lie, do that, too.
    ## Threshold and its origin
    None: all labels of a batch are those of a target that was viewed in the other order, and are not those of it as it
    lies. Asked of at least {fewest} labels, of batches whose axes differ in length.
    """

    code, name, level, rank = "WIR038", "outputs are held to labels of another place or row", "error", 1.05
    explains = "WIR006..WIR008 WIR011 WIR017 TRN003..TRN005 TRN010 TRN011 DAT003 MEM* ATT* OUT00* SRC*"
    fewest = 8
    cures = Cure(
        "Bring both into one order before they are flattened:",
        "loss = F.cross_entropy(logits.transpose(0, 1).reshape(-1, logits.size(-1)), labels.reshape(-1))",
        "loss = F.cross_entropy(logits.flatten(0, 1), labels.t().flatten())  # (time, batch) outputs",
        "source, target = source[order], target[order]  # where one of them is sorted",
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.observed is not None and wiring.observed.flattened:
            yield self.finding(wiring.observed.flattened)
