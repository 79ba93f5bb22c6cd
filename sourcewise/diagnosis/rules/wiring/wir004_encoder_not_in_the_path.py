from sourcewise.diagnosis.measures.wiring import MEASURED, STILL
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class EncoderNotInThePath(Rule[Wiring]):
    """How far the logits move when noise of their own size is added to all weights of the encoder, as a share of the
    largest logit (distance from the mean over the vocabulary).
    ## Why that is bad
    The source reaches the decoder past the encoder: its weights are never read and never learn.
    ## Threshold and its origin
    At most {still}, while another source moves them. {measured}: 0.0099 and more; exactly 0 where the encoder is not
    read. With the recipe's own route bypass that is as asked, and a note.
    """

    code, name, level = "WIR004", "encoder not in the path", "error"
    explained_by = "WIR001 WIR002"
    still, measured = STILL, MEASURED  # a share of the largest logit
    cures = Cure("What `encode` returns must be what the encoder made of the vectors.", {"model.route": "encoder"})

    def check(self, wiring: Wiring) -> Findings:
        paths = wiring.paths
        if paths.encoder is None or paths.source is None or paths.encoder > self.still or not paths.reached:
            return
        evidence = (
            f"noise in all its weights moves the logits by {paths.encoder:.1g}, another source by {paths.source:.2g}"
        )
        if wiring.bypass:
            cure = Cure("Nothing, if that is what you want; to train the encoder:", {"model.route": "encoder"})
            yield self.finding(f"{evidence}, as {wiring.bypass} asks", "note", cure)
        else:
            yield self.finding(evidence)
