from sourcewise.diagnosis.measures.wiring import LEAK, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class PlaceInTheBatch(Rule[Wiring]):
    """How far the outputs of the examples of a batch move, in eval mode, when the same examples change places in it.
    ## Why that is bad
    An example is then read otherwise in the first row than in the tenth. Usual cause: positions are added along the
    axis of the batch, as where a module of a tutorial that reads (time, batch, dims) is given (batch, time, dims): all
    words of an example have one position, so that their order is not read, and each row has its own.
    ## Threshold and its origin
    More than {leak} of the largest logit. All that is given stays the same, so that nothing but the place moves them.
    {measured}: at most 1e-6. Where rows read each other (WIR032) it is not asked.
    """

    code, name, level, rank = "WIR037", "an output depends on the example's row in the batch", "error", 1.25
    explained_by = "WIR001 WIR021 WIR032"
    implied_by = "WIR032"
    explains = "WIR005 WIR006 WIR011 WIR022 WIR028 TRN003..TRN005 TRN010 TRN011 MEM* ATT* OUT00* SRC*"
    leak, measured = LEAK, MEASURED
    cures = Cure(
        "Add positions along the axis of time. For (batch, time, dims):",
        "x = x + self.pe[:, : x.size(1)]  # pe (1, longest, dims); not self.pe[: x.size(0)]",
    )

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.place is None or paths.place <= max(self.leak, paths.leak):
            return
        evidence = f"the same examples in other rows of the batch: their outputs move by {paths.place:.2g} of the "
        evidence += "largest" if paths.source is None else f"largest; with other sources, by {paths.source:.2g}"
        yield self.finding(evidence)
