from sourcewise.diagnosis.measures.reading import ALIKE, FEWEST, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained


class MemoryAlikeAcrossPositions(Rule[Trained]):
    """How far the encoder's outputs at different places of one example are from their mean, as a share of their own
    size (root mean squares; one batch).
    ## Why that is bad
    The memory is one vector, repeated: cross-attention has nothing to choose from; order and detail are lost.
    ## Threshold and its origin
    Below {bound}, of memories of {fewest} slots or more. {measured}: 0.36 (Perceiver) to 0.95, and 0.11 early.
    """

    code, name, level = "MEM002", "memory alike across positions", "warning"
    explained_by = "MEM001 DAT011 WIR001 WIR002 WIR013"
    implied_by = "MEM001"
    bound, fewest, measured = ALIKE, FEWEST, MEASURED
    cures = (
        Cure(
            "A bridge that keeps time apart, and positions in it:",
            {"model.bridge.kind": "convolution", "model.bridge.positions": True},
            instead="",
        ),
        Cure("With text, look for an encoder that averages over positions, or one too deep to have been trained."),
    )

    def check(self, trained: Trained) -> Findings:
        apart = trained.memory
        if apart.slots < self.bound:
            evidence = f"its vectors are {apart.slots:.2g} of their size apart within an example"
            yield self.finding(f"{evidence}, {apart.examples:.2g} between examples ({apart.rows} of them)")
