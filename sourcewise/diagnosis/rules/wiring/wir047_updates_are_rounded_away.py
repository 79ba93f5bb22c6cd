from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class UpdatesAreRoundedAway(Rule[Wiring]):
    """Of the weights that are kept in half precision (bf16, fp16), and that an optimizer steps: the share of the
    numbers with a gradient that a step moves at all.

    ## Why that is bad
    bf16 has 8 bits: 0.05 has its next neighbours at 0.0002 from it. An update of less than half of that is rounded back
    to where the weight was, in each step anew, so that a thousand of them do no more than one. The loss moves by what
    the smallest weights learn, and comes to rest too high.

    ## Threshold and its origin
    Below {warning:%} a warning, below {error:%} an error. Measured: all move in fp32, nine of ten in bf16 at a rate of
    1e-3, and one of twenty at 2e-5; a third or less at 3e-4 in a T5 that had 41 % right by it, and 91 % in fp32. The
    look at the highest learning rate tells, and none at 0. An optimizer that rounds at random,
    or keeps what was rounded off, moves as much on average, and may pass over it.
    """

    code, name, level, rank = "WIR047", "updates are rounded away", "error", 1.45
    warning, error = 0.4, 0.08  # of the numbers with a gradient
    explained_by = "WIR001 WIR030 WIR041"
    explains = "WIR014 TRN003..TRN005 TRN009 OUT009"
    cures = Cure(
        "Keep the weights in fp32, and compute in bf16 by autocast; or take a higher rate:",
        "network.float()  # or from_pretrained(..., dtype=torch.float32)",
        "with torch.autocast('cuda', torch.bfloat16): ...",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        seen = wiring.rounded
        if seen is None or seen.rate <= 0:
            return
        if level := self.below(seen.moved):
            evidence = f"of {seen.numbers:,} {seen.kind} weights with a gradient that were looked at a step moves "
            yield self.finding(f"{evidence}{100 * seen.moved:.1f} %, at a rate of {seen.rate:.2g}", level)
