from sourcewise.diagnosis.measures.reading import ALIKE, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained


class MemoryAlikeAcrossExamples(Rule[Trained]):
    """How far the encoder's outputs at the same place of different examples are from their mean, as a share of their
    own size (root mean squares; one batch).
    ## Why that is bad
    The decoder gets the same memory whatever the source: no attention and no training of the decoder can read what is
    not in it.
    ## Threshold and its origin
    Below {bound}. {measured}: 0.58 to 0.87; 0.11 after 30 steps over digits, when nothing is read yet. bf16 rounds a
    vector by 0.004 of its size: what is hardly larger is noise to whoever reads it.
    """

    code, name, level = "MEM001", "memory alike across examples", "error"
    explained_by = "DAT001 DAT002 DAT011 DAT012 WIR001 WIR002 WIR003 WIR005 WIR014"
    bound, measured = ALIKE, MEASURED
    cures = Cure(
        "Look from the source on: are the features different (DAT011, DAT012), are the bridge's weights zero, "
        "does the mask hide all slots, has the encoder diverged? Then train from before it happened, with a "
        "lower rate.",
        {"train.learning_rate": 3e-4, "train.clip": 1.0},
        instead="Look from the source on: are the sources different, are weights behind them zero, does the mask hide "
        "all of them, has the encoder diverged? Then train from before it happened, with a lower rate:",
    )

    def check(self, trained: Trained) -> Findings:
        apart = trained.memory
        if apart.examples < self.bound:
            evidence = f"its vectors are {apart.examples:.2g} of their size apart between examples"
            yield self.finding(f"{evidence}, {apart.slots:.2g} within one ({apart.rows} examples)")
