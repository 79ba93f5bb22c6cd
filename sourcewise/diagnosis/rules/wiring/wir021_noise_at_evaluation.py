from sourcewise.diagnosis.measures.wiring import PASSES, STEADY
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class NoiseAtEvaluation(Rule[Wiring]):
    """How far the logits of one batch are apart from one pass to the next, in eval mode, as a share of the largest
    logit; beside it, how far another source moves them. Two passes; up to {passes:words} where the network draws random
    numbers.
    ## Why that is bad
    The same source then has another output each time, and every figure is that of a network with noise in it. What is
    found by comparing passes (WIR004 to WIR007, WIR010, WIR011) cannot be told from the noise, and is not asked.
    ## Threshold and its origin
    More than {warning} a warning; from {share:words} of what another source does, an error. Measured on small T5 and
    BART, fresh and trained: exactly 0; with a dropout of 0.1 that stays on 0.11 to 0.39, with noise of a tenth of the
    memory's size 0.04 to 0.12, with feed-forward layers left out at random 0.28 to 0.41. A fresh BART hardly reads its
    source (0.01), and shows a hundredth of all that: hence the comparison.
    """

    code, name, level, rank = "WIR021", "noise that stays on at evaluation", "error", 1.1
    explained_by = "WIR001"
    warning, share, passes = STEADY, 0.1, PASSES  # of the largest logit, and of what another source does
    cures = Cure(
        "Look in forward() for what does not heed eval(): F.dropout(x, p) and F.dropout(x, p, True) need "
        "training=self.training, torch.randn and torch.rand an `if self.training:` before them; and for a "
        "train() or eval() that was overridden. nn.Dropout heeds it by itself."
    )

    def check(self, wiring: Wiring) -> Findings:
        moved, source = wiring.moved, wiring.all_paths.source
        if moved > self.warning:
            evidence = f"two passes over one batch, in eval mode, give logits that are {moved:.2g} of the largest apart"
            if source is not None:
                evidence += f"; another source moves them by {source:.2g}"
            yield self.finding(evidence, "error" if moved >= self.share * min(1.0, source or 1.0) else "warning")
