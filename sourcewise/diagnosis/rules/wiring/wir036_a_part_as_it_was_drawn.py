from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

STACKS = ("encoder", "decoder")


class PartAsDrawn(Rule[Wiring]):
    """For each matrix of a network that was loaded, whether it looks as drawn at random, number by number: its largest
    singular value is no larger than that of independent numbers. The encoder, or the decoder, all of whose matrices do,
    while most of the others do not.
    ## Why that is bad
    A checkpoint whose keys match nothing (strict=False, a prefix such as module., another class) leaves a part as it
    was drawn, and says so in a warning that nobody reads: the decoder was trained, its encoder is noise.
    ## Threshold and its origin
    All matrices of the encoder or of the decoder, at least {few}, and at most {others:words} of the rest. A warning
    alone: a new part may be meant, and what has hardly been trained looks as it was drawn, too. Not of a part whose
    norms were trained, nor of a run of ours that began without weights. An error where that is
    so of all matrices, {every} or more, and of norms and biases, of a model whose outputs are judged.
    """

    code, name, level, rank = "WIR036", "a part of a loaded model is as it was drawn", "warning", 3.2
    explained_by = "WIR001"
    explains = "TRN003..TRN005 MEM* ATT* OUT00* SRC*"
    few, others, every = 2, 0.5, 6  # matrices, share of them, and matrices of the whole
    cures = Cure(
        "Compare the names in the file with those of the network; what load_state_dict(..., strict=False) returns as "
        "missing_keys was not loaded:",
        "print(network.load_state_dict(state, strict=False))",
    )

    def check(self, wiring: Wiring) -> Findings:
        plan = wiring.plan
        if wiring.observed is not None or (plan is not None and (plan.fresh or plan.loaded)):
            return
        every = wiring.drawn.values()
        drawn, matrices = sum(own[0] for own in every), sum(own[1] for own in every)
        if wiring.untrained and drawn == matrices >= self.every and set(STACKS) <= wiring.drawn.keys():
            evidence = f"all {matrices} matrices that were looked at are as drawn at random, and norms and biases as "
            yield self.finding(f"{evidence}networks begin: nothing was loaded into this model", "error")
            return
        if wiring.from_scratch:  # a part that was drawn is meant, and what moved it little is no file
            return
        for part, (own, of, left, rest) in wiring.drawn.items():
            if part in STACKS and own == of >= self.few and rest and left <= self.others * rest:
                evidence = f"all {of} matrices of the {part} that were looked at are as drawn at random"
                yield self.finding(f"{evidence}, and {left} of the other {rest}")
