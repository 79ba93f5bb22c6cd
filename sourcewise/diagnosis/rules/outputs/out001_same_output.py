from collections import Counter

from sourcewise.diagnosis.outputs import Outputs, shown, top_share
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SameOutput(Rule[Outputs]):
    """The share of the commonest output, beside the share of the commonest reference.
    ## Why that is bad
    Whatever goes in, the same comes out: mode collapse. BLEU on such a set is the BLEU of one sentence.
    ## Threshold and its origin
    Error where one text is at least {share:words} of the outputs and at least {excess} points more common than any
    reference. Warning where, on skewed targets, the commonest output went at least {way:%} of the way from the
    commonest reference's share to 100 % (and at least {some} points). Ours; relative, so that a set with two labels is
    not a collapse. Of several references of one source the one that was said counts; where the length limit cuts the
    outputs (OUT007), references are cut alike.
    """

    code, name, level = "OUT001", "same output for everything", "error"
    explained_by = (
        "DAT002 DAT004 DAT005 DAT007 DAT012 DAT014 DAT015 DAT018 WIR018..WIR020 SRC001 OUT006 TRN001..TRN005 "
        "TRN009 TRN011 TRN013"
    )
    implied_by = "OUT006:error"
    share, excess = 0.5, 30  # of the outputs, and points above the commonest reference: an error
    way, some = 0.8, 5  # of the way from the commonest reference to 100 %, and points: a warning
    cures = Cure(
        "If SRC001 is found too, the source does not reach the decoder: start there. If not, the targets are "
        "likely skewed: train longer, with a loss that wants the own source likelier than another's, and "
        "compare greedy search with beams (a large beam collapses first):",
        {"train.contrastive": 0.3},
        {"generation.beams": 1},
    )

    def check(self, outputs: Outputs) -> Findings:
        given = outputs.outputs
        text, count = Counter(given).most_common(1)[0]
        top, usual = 100 * count / len(given), top_share(outputs.wanted)
        evidence = f"{top:.0f} % of {len(given)} outputs are {shown(text)}; the commonest reference has {usual:.1f} %"
        if top >= 100 * self.share and top - usual >= self.excess:
            yield self.finding(evidence)
        elif top - usual >= max(self.some, self.way * (100 - usual)):
            yield self.finding(evidence, "warning")
