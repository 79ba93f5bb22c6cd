from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class StateNotHandedOver(Rule[Wiring]):
    """Which outputs of the encoder, in a training in plain PyTorch, the loss does not depend on, where the decoder
    began with another tensor of the same shape.
    ## Why that is bad
    What the encoder made of the source is thrown away, and the decoder begins with zeros, or with what it is told by
    itself: without attention it knows nothing of its source.
    ## Threshold and its origin
    An encoder by which the loss has no gradient at all is an error; a state that is not read, beside others that are, a
    warning. A state that no tensor of its shape stands in for is left alone: an encoder may give more than is asked.
    """

    code, name, level, rank = "WIR028", "the encoder's state is not handed over", "error", 1.4
    explained_by = "WIR001 WIR003 WIR026 WIR027"
    explains = "WIR011 WIR012 TRN005 TRN006"
    cures = Cure(
        "Hand to the decoder what the encoder returned, and nothing made anew in between, no .detach() and no .data:",
        "memory, state = encoder(source)",
        "logits = decoder(target_in, state, memory)",
    )

    def check(self, wiring: Wiring) -> Findings:
        state = wiring.observed.state if wiring.observed is not None else None
        if state is None:
            return
        shape = f" {state.shape}" if state.shape else ""
        evidence = f"the loss does not depend on {state.name}{shape}, which the encoder gave"
        evidence += f"; {state.begun}" if state.begun else ""
        if not state.read:
            evidence += "; no weight of the encoder has a gradient"
        yield self.finding(evidence, "warning" if state.read else "error")
