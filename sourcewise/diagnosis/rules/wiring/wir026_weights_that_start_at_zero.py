from sourcewise.diagnosis.measures.first_step import ADAPTER
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

NAMED = 3  # matrices


class WeightsThatStartAtZero(Rule[Wiring]):
    """Matrices that are all zeros before the first step of a training in plain PyTorch, whether they are so still some
    steps later, and how many of the other matrices had no gradient at first.
    ## Why that is bad
    Behind a matrix of zeros everything is zero, and before it every gradient. Two of them in a row never learn: each
    waits for the other. Where embeddings and the output layer are zeros, all tokens look alike, and nothing between
    them is told what to become.
    ## Threshold and its origin
    Error where such a matrix learns and is all zeros after {least} steps and more, and where embeddings of tokens are
    among them and {starved:words} of all other matrices had a gradient of exactly 0 at first. One matrix of zeros at
    the end of a branch, such as an adapter's, or an output layer alone, is told from the second step on: a note where
    it starved the others at first, else nothing.
    """

    code, name, level, rank = "WIR026", "weights that start at zero", "error", 1.2
    explained_by = "WIR001"
    explains = "WIR002 WIR004 WIR011..WIR014 TRN003 TRN004 TRN005 TRN006 TRN009"
    least, starved = 2, 0.5  # steps, and of the other matrices
    cures = Cure(
        "Leave PyTorch's own initialisation, or draw each matrix; zeros are for biases. What draws every matrix:",
        "for p in network.parameters(): p.dim() > 1 and torch.nn.init.xavier_uniform_(p)",
    )

    def check(self, wiring: Wiring) -> Findings:
        zeros = wiring.observed.zeros if wiring.observed is not None else None
        if zeros is None or not zeros.names:
            return
        if zeros.stuck and all(map(ADAPTER.search, zeros.stuck)):
            return  # they begin so on purpose; that no gradient comes is told by WIR012
        evidence = f"{self.named(zeros.names)} began as zeros"
        if zeros.steps >= self.least and zeros.stuck:
            known = zeros.stuck == zeros.names
            still = "all are" if known and len(zeros.names) > 1 else self.named(zeros.stuck) + " is"
            yield self.finding(f"{evidence}; after {zeros.steps} steps {still} so still, for no gradient reaches them")
        elif zeros.starved >= self.starved:
            evidence += f"; {100 * zeros.starved:.0f} % of the other matrices had no gradient at the first step"
            yield self.finding(evidence, "error" if zeros.tables else "note")

    def named(self, names: tuple[str, ...]) -> str:
        """Some of the names, and how many more there are."""
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more
