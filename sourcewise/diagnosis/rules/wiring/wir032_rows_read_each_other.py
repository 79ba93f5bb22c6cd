from sourcewise.diagnosis.measures.wiring import LEAK, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class RowsReadEachOther(Rule[Wiring]):
    """How far the outputs of the rows of a batch move, in eval mode, when every second row is exchanged for the one
    before it, beside how far another source moves them; and the first module that is given rows apart and gives them
    mixed.
    ## Why that is bad
    What is said of a source then depends on its neighbours: in training the network learns from strangers, at
    evaluation a figure changes with the batch size, and alone a source is read otherwise than ever before. Usual
    causes: a recurrent layer without batch_first=True takes the batch for time, a softmax or mean over axis 0, view()
    in place of transpose(), a norm over what is in the batch.
    ## Threshold and its origin
    More than {leak} of the largest logit. The rows that are looked at, their width and their places stay the same, so
    that even padding that is read does not move them. {measured}: at most 1e-6. A warning where experts of limited
    capacity choose among all tokens of a batch, as is meant.
    """

    code, name, level, rank = "WIR032", "rows of a batch read each other", "error", 1.2
    explained_by = "WIR001 WIR021"
    explains = "WIR005 WIR006 WIR011 WIR022 WIR028 TRN003..TRN005 TRN010 TRN011 MEM* ATT* OUT00* SRC*"
    leak, measured = LEAK, MEASURED
    cures = Cure(
        "Look which axis is the batch's in that module: batch_first=True for layers that are given (batch, time, "
        "dims), softmax and mean over the axis of time (dim=1 or -1, never 0), transpose() where two axes change "
        "places, and eval() with norms that keep running statistics."
    )

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.company is None or paths.company <= max(self.leak, paths.leak):
            return
        evidence = f"with other rows beside them, the outputs of a batch's rows move by {paths.company:.2g} of the "
        evidence += "largest" if paths.source is None else f"largest; with other sources, by {paths.source:.2g}"
        evidence += f". {paths.mixed}" if paths.mixed else ""
        meant = any(word in paths.mixed.lower() for word in ("router", "expert", "sparse"))
        yield self.finding(evidence, "warning" if meant else "error")
