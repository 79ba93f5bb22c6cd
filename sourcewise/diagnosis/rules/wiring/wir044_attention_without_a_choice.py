from sourcewise.diagnosis.measures.choices import ALIKE, QUERIES
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

SHARP = Cure(
    "Divide the scores by the root of the depth of a head, and do not multiply them:",
    "scores = q @ k.transpose(-1, -2) / depth**0.5",
)


class AttentionWithoutAChoice(Rule[Wiring]):
    """Over which axis each softmax of a forward pass runs, by the line that calls it, and along which axis a product
    then adds up with its weights, in a training of somebody's own modules.

    ## Why that is bad
    Over an axis of one entry every weight is 1, whatever the scores: attention adds up all of the source, and no score
    ever gets a gradient. The loss falls all the same, by what the sum tells, and comes to rest too high. Weights that
    sum to 1 along the queries let queries compete for each key, and a decoder's weights know of later words. Scores
    that are linear in the decoder's state (additive attention without its tanh) lose it in the softmax: each step reads
    the same mixture of the source.

    ## Threshold and its origin
    An error where every softmax that a line makes in a pass runs over one entry, beside an axis as long as the sources.
    A line that has more to choose from at another place, as a decoder's first word and its others, is left alone; so is
    what runs over the keys of torch's own attention, since a memory may have a single slot. An error, too, where the
    weights of a softmax are a factor of a matrix product (matmul, bmm, @) that adds up along another axis. And where a
    line makes weights over the places of the source {queries:words} times or more in a pass, for one step of the
    decoder each, and all are the same to {alike}, but not even. A warning where all scores over the places of the
    source have, in a fresh network, a standard deviation of {sharp} and more, as those that were multiplied by the root
    of the depth have, not divided: then the softmax is all or nothing, and no other place gets a gradient. Measured in
    fresh ones: 0.1 to 1.5 where the scores are scaled.
    """

    code, name, level, rank = "WIR044", "attention does not choose among what it adds up", "error", 5.2
    explained_by = "WIR001 WIR028"
    queries, alike, sharp = QUERIES, ALIKE, 5  # and of the scores of a fresh network, a standard deviation
    explains = "WIR005 WIR006 WIR043 TRN003..TRN005 SRC* OUT00*"
    cures = Cure(
        "Let the softmax run along the places of the source, the axis of time of the scores:",
        "scores = v(torch.tanh(w(outputs) + u(state)))  # without tanh the softmax takes the state out",
        "weights = torch.softmax(scores, dim=1)  # scores (batch, time, 1); or squeeze(-1), then dim=-1",
        "context = torch.softmax(scores, dim=-1) @ values  # scores (batch, heads, queries, keys)",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        if wiring.choiceless:
            yield self.finding(wiring.choiceless)
        elif wiring.observed is not None and wiring.observed.moves.sharp >= self.sharp:
            evidence = f"before anything is learned the scores of attention are {wiring.observed.moves.sharp:.3g} apart"
            yield self.finding(f"{evidence} (standard deviation): each query reads one place", "warning", SHARP)
