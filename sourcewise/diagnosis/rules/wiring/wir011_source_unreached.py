from sourcewise.diagnosis.measures.wiring import MEASURED, STILL
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class SourceUnreached(Rule[Wiring]):
    """How far the logits of one batch move when every source holds what another one holds, its length kept, as a share
    of the largest logit. With features, a prompt stays.
    ## Why that is bad
    Whatever the source says, the decoder says the same. No training mends that: there is no path to learn.
    ## Threshold and its origin
    At most {still}. {measured}: 0.0028 (BART, whose first outputs depend on the source least) to 0.63; exactly 0 where
    the path is cut.
    """

    code, name, level = "WIR011", "the source does not reach the logits", "error"
    explained_by = "DAT014 WIR001 WIR002 WIR005 WIR013 WIR014"
    explains = "WIR006 WIR007"  # a decoder that reads no source may read its target instead
    implied_by = "WIR026:error WIR028:error"
    still, measured = STILL, MEASURED  # a share of the largest logit
    cures = Cure(
        "Follow the source: features (are they constant?), bridge (are its weights zero?), encoder, memory, "
        "cross-attention (is every slot masked, its output projection zero?). The first place where two sources"
        " look alike is the fault.",
        instead="Follow the source: the batch (are its sources alike?), encoder, memory, cross-attention (is every "
        "position masked, its output projection zero?). The first place where two sources look alike is the fault.",
    )

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.source is not None and not paths.reached:
            evidence = f"other sources of the same length move the logits by {paths.source:.1g} of the largest"
            if paths.encoder is not None:
                evidence += f", noise in the encoder's weights by {paths.encoder:.1g}"
            yield self.finding(evidence)
