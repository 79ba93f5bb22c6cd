from sourcewise.diagnosis.measures.reading import FEWEST, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained


class AttentionOnOnePosition(Rule[Trained]):
    """The share of a head's cross-attention, over a whole target, that is on the one slot it reads most; for the head
    of all layers that is least fixed.
    ## Why that is bad
    All heads look at one slot, often the first or the end of text: the rest of the source is never read.
    ## Threshold and its origin
    {bound} and above, of sources of {fewest} slots and targets of {fewest} tokens or more. {measured}: 0.06 to 0.36.
    """

    code, name, level, rank = "ATT002", "cross-attention on one position", "warning", 4
    explained_by = "DAT013 DAT014 MEM001 SRC001 WIR001 WIR002 WIR005 WIR011 WIR014"
    bound, fewest, measured = 0.9, FEWEST, MEASURED
    cures = Cure(
        "Look whether the mask hides all slots but one, and whether one slot's vector is far larger than the "
        "others (WIR002, DAT013). Then train with a lower rate, or with dropout.",
        {"train.learning_rate": 3e-4, "model.dropout": 0.1},
    )

    def check(self, trained: Trained) -> Findings:
        gaze = trained.gaze
        if gaze.fixed >= self.bound:
            evidence = f"each of {gaze.heads} heads has {100 * gaze.fixed:.0f} % or more of its weight on one slot"
            yield self.finding(f"{evidence} ({gaze.examples} examples)")
