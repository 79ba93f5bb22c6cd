import numpy as np

from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

TABLES = ("embed", "shared", "emb.", "wte", "wpe", "tok_", "vocab")  # in names of what is looked up, not multiplied

ROUNDED = 1e-3  # from all of it


class DrawnForAnotherWidth(Rule[Wiring]):
    """The gain of the matrices of a network that begins from random weights: the root mean square of the numbers of
    each, times the square root of how many of them are added up for an output; the median of all but tables of
    embeddings.
    ## Why that is bad
    A gain far below 1 makes less of a signal in each layer: what attention reads of the source drowns in the residual.
    A deviation of 0.02 (init_std, initializer_range) is drawn for a width of 768 and more; at a width of 64 it is a
    sixth of what it should be. A gain far above 1 saturates attention and the softmax. Numbers of one sign, or one
    number throughout, add up whatever they are given to about the same in every unit: units that begin alike get like
    gradients, and a network of them hardly tells one source from another.
    ## Threshold and its origin
    In trainings of others; in those by a recipe of ours what runs through the network is measured instead (WIR016).
    Of {few:words} matrices or more: an error where the mean of the numbers is {sided:%} or more of their root mean
    square (median), a warning where the gain is below {low} or above {high}. Measured: 0.8 to 1 by Xavier's rule, 0.58
    by torch's own, 1.4 by He's, 0.55 to 0.64 in BART and BERT of published widths. Measured on a BART of three layers
    and width 64: with a deviation of 0.02 (0.16) it reads nothing after 200 steps, with 0.1 (0.8) it makes no mistake.
    """

    code, name, level, rank = "WIR034", "weights drawn for another width", "warning", 12.1
    implied_by = "WIR002 WIR026:error"
    explained_by = "WIR001"
    sided = 0.5  # of the root mean square
    explains = "WIR011 WIR013 TRN006 TRN003..TRN005 TRN013 TRN014 MEM* ATT* OUT00* SRC001"
    low, high, few = 0.2, 4.0, 4  # the same; matrices
    cures = Cure(
        "Draw the weights for the width that there is, a deviation of about 1 / sqrt(width): init_std or "
        "initializer_range of the configuration, or",
        "[torch.nn.init.xavier_uniform_(p) for p in network.parameters() if p.dim() > 1]",
    )

    def check(self, wiring: Wiring) -> Findings:
        observed, plan = wiring.observed, wiring.plan
        weights = observed.began if observed is not None else ()
        others = wiring.learning is None  # what runs through networks of ours is measured itself (WIR016)
        if observed is None and wiring.step is not None and plan is not None and plan.fresh and others:
            weights = wiring.step.weights
        some = [w for w in weights if w.width > 1 and w.value > 0 and not any(word in w.name for word in TABLES)]
        if len(some) < self.few:
            return
        mean = float(np.median([abs(w.mean) / w.value for w in some]))
        if mean >= self.sided:
            one = "one number throughout" if mean > 1 - ROUNDED else "numbers of one sign"
            evidence = (
                f"{len(some)} matrices begin as {one}: their mean is {100 * mean:.0f} % of their root mean square"
            )
            yield self.finding(f"{evidence} (median), where that of numbers drawn around 0 is next to nothing", "error")
            return
        gain = float(np.median([w.value * w.width**0.5 for w in some]))
        if self.low <= gain <= self.high:
            return
        width = int(np.median([w.width for w in some]))
        deviation = float(np.median([w.value for w in some]))
        evidence = (
            f"{len(some)} matrices have a gain of {gain:.2g} (median): a deviation of {deviation:.2g} at a width of"
        )
        yield self.finding(f"{evidence} {width}; about {width**-0.5:.2g} keeps a signal as it is")
