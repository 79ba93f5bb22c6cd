from sourcewise.diagnosis.measures.reading import MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained


class AttentionNeverMoves(Rule[Trained]):
    """How much of a head's cross-attention is, token by token, elsewhere than where it is on average over the target
    (half the absolute difference; 0 to 1), for the head of all layers that moves most.
    ## Why that is bad
    Every target token reads the same mixture of the source. The decoder can know what the source is about, not which
    part of it comes next: words are lost, repeated, or in the order that targets usually have.
    ## Threshold and its origin
    Below {bound}. {measured}: 0.36 to 0.80. Fresh networks have 0.008 to 0.02, and 0.04 after 30 steps over digits: it
    is where training begins.
    """

    code, name, level, rank = "ATT001", "cross-attention never moves", "warning", 5
    explained_by = "DAT003 DAT018 WIR001 WIR003 WIR011 WIR012 WIR014 WIR020 MEM* SRC001"
    implied_by = "ATT002"
    bound, measured = 0.05, MEASURED
    cures = Cure(
        "Train longer; where it stays, give memory and decoder positions to find their place by, and an "
        "auxiliary loss that aligns the memory with the targets; where both go the same way, one on attention "
        "off the diagonal.",
        {"model.bridge.positions": True, "model.decoder_positions": True, "train.ctc_weight": 0.5},
        {"train.guided_attention": 1},
    )

    def check(self, trained: Trained) -> Findings:
        gaze = trained.gaze
        if gaze.moved < self.bound:
            evidence = f"of {gaze.heads} heads none has more than {100 * gaze.moved:.2g} % of its weight elsewhere"
            yield self.finding(f"{evidence} than usual ({gaze.examples} examples)")
