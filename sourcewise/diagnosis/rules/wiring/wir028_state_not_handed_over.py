from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.observed import Standing
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

BY_STEP = Cure(
    "Begin each step with the state of the step before:",
    "state = first_state",
    "for word in words:",
    "    output, state = cell(word, state)",
)


class StateNotHandedOver(Rule[Wiring]):
    """Which outputs of the encoder, in a training in plain PyTorch, the loss does not depend on, where the decoder
    began with another tensor of the same shape. And the states that a recurrent cell, or layer that reads one step a
    call, begins its calls with.
    ## Why that is bad
    What the encoder made of the source is thrown away, and the decoder begins with zeros, or with what it is told by
    itself: without attention it knows nothing of its source. A cell whose state does not go from step to step knows
    the last word alone, not what it said before, nor how far it has come.
    ## Threshold and its origin
    An encoder by which the loss has no gradient at all is an error; a state that is not read, beside others that are, a
    warning. A cell that was called {calls:words} times or more, with other inputs and the very same state each time, is
    an error; a warning where it is the hidden or the cell state of an LSTM alone. A state that no tensor of its shape
    stands in for is left alone: an encoder may give more than is asked.
    """

    code, name, level, rank = "WIR028", "the state is not handed over", "error", 1.4
    calls = 3
    explained_by = "WIR001 WIR003 WIR026 WIR027"
    explains = "WIR011 WIR012 TRN005 TRN006"
    cures = Cure(
        "Hand to the decoder what the encoder returned, and nothing made anew in between, no .detach() and no .data:",
        "memory, state = encoder(source)",
        "logits = decoder(target_in, state, memory)",
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.observed is None:
            return
        if wiring.observed.standing is not None:
            yield self.of_steps(wiring.observed.standing)
        state = wiring.observed.state
        if state is None:
            return
        shape = f" {state.shape}" if state.shape else ""
        evidence = f"the loss does not depend on {state.name}{shape}, which the encoder gave"
        evidence += f"; {state.begun}" if state.begun else ""
        if not state.read:
            evidence += "; no weight of the encoder has a gradient"
        yield self.finding(evidence, "warning" if state.read else "error")

    def of_steps(self, cell: Standing) -> Finding:
        """Of a cell whose state stands still."""
        what = f"the very same {cell.what or 'state'}{', zeros' if cell.zeros else ''}"
        evidence = f"{cell.name} ({cell.kind}) was called {cell.calls} times in a pass, with other inputs and {what}: "
        evidence += "its state is not handed from step to step"
        return self.finding(evidence, "warning" if cell.what else "error", BY_STEP)
