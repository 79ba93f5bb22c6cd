import math

from sourcewise.diagnosis.measures.wiring import MEASURED
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class LogitsTooLargeOrSmall(Rule[Wiring]):
    """The standard deviation of the logits over the vocabulary, averaged over the target positions of one batch.
    ## Why that is bad
    With all logits equal no gradient gets past the output matrix: nothing learns. With logits far too large the softmax
    is all or nothing, and the first thousands of steps only undo the initialisation. The initial loss does not tell: an
    untied T5 of Hugging Face begins at 37 to 75 nats, not at ln V, and that is healthy.
    ## Threshold and its origin
    Error at 0 (all logits equal), and above {widths} √d_model; warning below {least}. {measured}: 0.12 (BART, whose
    0.02 is the smallest initialisation in use; over a width of 32) to 1.4. The largest in use is that of an untied T5
    of Hugging Face, a head of deviation 1 on normalised states: √d_model.
    """

    code, name, level = "WIR002", "initial logits too large or too small", "error"
    explained_by = "WIR001"
    implied_by = "WIR026:error"
    widths, least, measured = 4, 0.02, MEASURED  # times √d_model
    cures = Cure(
        "Initialise as the family does: a fresh network of a recipe is, unless its weights were changed afterwards. If "
        "the weights are pretrained, check that all of them were loaded. Or draw the matrices by another rule:",
        {"model.initialization": "xavier"},
        instead="Initialise as the family does: a model made from its configuration is, unless its weights were "
        "changed afterwards. If the weights are pretrained, check that all of them were loaded.",
    )

    def check(self, wiring: Wiring) -> Findings:
        spread, width = wiring.all_paths.spread, wiring.width
        most = math.inf if width is None else self.widths * math.sqrt(width)
        evidence = f"the logits' standard deviation over the vocabulary is {spread:.3g}"
        if spread == 0:
            yield self.finding("the logits of every token are the same, at every position")
        elif spread > most:
            yield self.finding(f"{evidence}, above {most:.3g} for a width of {width}")
        elif spread < self.least:
            yield self.finding(f"{evidence}; fresh networks of any family have 0.1 and more", "warning")
