from sourcewise.diagnosis.measures.wiring import STILL
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class OrderUnread(Rule[Wiring]):
    """How far the logits of one batch move when every source is turned from its end to its beginning, beside how far
    they move with the content of another source.
    ## Why that is bad
    A network that cannot tell "dog bites man" from "man bites dog" reads a bag of words. Attention has no order of its
    own: without positions in the encoder, whatever it is given comes out in any order.
    ## Threshold and its origin
    At most {share} of what another source does, and at most {still} of the largest logit. A warning for features, and
    where the encoder is not in the path, as one vector of all frames may be meant. In a loop of one's own, features
    of one length are not asked, as regions of pictures have no order. Measured: 0.04 and more in networks
    with positions, 2e-7 without.
    """

    code, name, level = "WIR022", "the order of the source is not read", "error"
    explained_by = "WIR001 WIR011 WIR021"
    implied_by = "WIR004 WIR005:error"
    share, still = 1e-3, 10 * STILL
    explains = "OUT00* SRC* TRN003..TRN005 TRN011"
    cures = Cure(
        "Give the encoder positions: add a position embedding (or sinusoids) to what it embeds, and look whether the "
        "table of positions, or of relative positions, is zero or frozen at zero; a bridge of convolutions or with a "
        "stride keeps the order of frames.",
        {"model.bridge.kind": "convolution"},
    )

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.order is None or paths.source is None or not paths.reached:
            return
        if paths.order <= min(self.still, self.share * paths.source):
            whole = paths.encoder is not None and wiring.batch is not None and wiring.batch.source.features is None
            if wiring.observed is not None:
                whole = wiring.observed.moves.text
            said = f"turned from end to beginning, sources move the logits by {paths.order:.1g} of the largest"
            yield self.finding(f"{said}; other sources by {paths.source:.2g}", "error" if whole else "warning")
