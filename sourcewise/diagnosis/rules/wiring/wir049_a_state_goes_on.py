from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class StateGoesOn(Rule[Wiring]):
    """Whether a recurrent layer or cell, in a training in plain PyTorch, begins a batch with the very state that it had
    at the end of the batch before.

    ## Why that is bad
    Each example is then read behind a stranger, the one in its row of the batch before: in training something else than
    alone, and at an evaluation another one in each order. So it is where a state is kept in the module, or outside of
    the loop, and only detached (repackage_hidden); that is for language models of one long text.

    ## Threshold and its origin
    An error where all states of a module are equal to those of the step before, to the last digit, and not zeros. A
    module that gets its state from another, as a decoder from its encoder, begins otherwise each time.
    """

    code, name, level, rank = "WIR049", "a state goes on from batch to batch", "error", 1.11
    explained_by = "WIR001"
    explains = "WIR021 WIR028 WIR032 WIR037 WIR040 TRN003..TRN005 TRN010 TRN011 OUT00* OUT019 SRC*"
    cures = Cure(
        "Begin each batch with a new state; torch's own layers begin with zeros where they are given none:",
        "memory, state = self.gru(embedded)  # not self.gru(embedded, self.state)",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        if wiring.observed is not None and wiring.observed.carried:
            yield self.finding(wiring.observed.carried)
