import re

from sourcewise.diagnosis.measures.first_step import counted
from sourcewise.diagnosis.measures.wiring import MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

SHARED = re.compile(r"(^|\.)shared\.weight$")  # of a T5 or BART that ties nothing: both sides have tables of their own
POOLER = re.compile(r"(^|\.)pooler\.")  # of BERT and its kin, which no decoder reads


class NoGradient(Rule[Wiring]):
    """Which weights that are to be trained the loss of one batch does not depend on, as autograd sees it.
    ## Why that is bad
    The forward pass reads them, and so nothing looks wrong; but they are never told what to become. A detach() behind
    the encoder leaves it random for good.
    ## Threshold and its origin
    Error where all weights of a part (embedding, encoder, decoder, bridge) have no gradient or one of exactly 0,
    warning for single tensors that have none. {measured}: every tensor has one, but for an encoder that the route
    bypass goes past, the pooler of BERT and its kin,
    which no decoder reads, and the shared table of a model whose sides have tables of their own.
    """

    code, name, level = "WIR012", "no gradient", "error"
    explained_by = "WIR001 WIR002 WIR003 WIR004 WIR011 WIR019"
    # Where the source does not reach the logits no gradient reaches it.
    implied_by = "WIR002 WIR004 WIR011 WIR026:error WIR028:error WIR030:error"
    measured = MEASURED
    cures = Cure("Look for detach(), no_grad() or .data between these weights and the loss.")

    def check(self, wiring: Wiring) -> Findings:
        weights = wiring.step.weights if wiring.step is not None else ()
        first = wiring.observed is not None and wiring.observed.early
        learning = [w for w in weights if w.learns and not w.frozen]
        parts = {part: [w for w in learning if w.part == part] for part in dict.fromkeys(w.part for w in learning)}
        silent = [w for rows in parts.values() if not any(w.gradient for w in rows) for w in rows if not first]
        read = {(w.size, w.width) for w in learning if w.gradient is not None and w.matrix}
        spare = [w for w in learning if SHARED.search(w.name) and (w.size, w.width) in read]
        unused = [w for w in learning if w.gradient is None and not POOLER.search(w.name) and w not in spare]
        cut = wiring.observed.detached if wiring.observed is not None else ""
        if cut:
            rows = [w for w in learning if w.part == "encoder"]
            yield self.finding(f"{cut}: the loss has no gradient by {counted(rows, weights)}")
        elif silent:
            yield self.finding(f"the loss has no gradient by {counted(silent, weights)}")
        elif unused:
            yield self.finding(f"the loss does not depend on {counted(unused, weights)}", "warning")
