from sourcewise.diagnosis.measures.wiring import LEAK, MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class FutureSeen(Rule[Wiring]):
    """How far the logits of a target's first half move when the tokens of its second half are others, as a share of the
    largest logit.
    ## Why that is bad
    In training the answer is then in the input: the loss falls to nearly zero, and outputs are nonsense, since at
    generation there is no future to read.
    ## Threshold and its origin
    More than {leak}; with layers that round by themselves as for WIR005. {measured}: exactly 0.
    """

    code, name, level = "WIR006", "the decoder sees the future", "error"
    explained_by = "WIR001 WIR002"
    leak, measured = LEAK, MEASURED
    cures = Cure("Bar every position after the query from the decoder's self-attention (a causal mask).")

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.future is not None and paths.future > paths.leak:
            evidence = "other tokens in the second half of the targets move the logits before them by "
            evidence += f"{paths.future:.2g} of the largest, those behind by {paths.past:.2g}"
            yield self.finding(evidence)
