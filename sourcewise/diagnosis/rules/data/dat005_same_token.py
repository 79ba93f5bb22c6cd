import numpy as np

from sourcewise.diagnosis.pairs import SAMPLE, Pairs, named, quoted, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SameToken(Rule[Pairs]):
    """The share of the commonest token among the target tokens, ends of text not counted.
    ## Why that is bad
    A model that says nothing else is right that often, and the gradients of the others drown.
    ## Threshold and its origin
    Warning from {warning:%}, error from {error:%}, where the targets hold at least {different} different tokens. Ours:
    in six healthy sets the commonest has 7 to 18 %; strings of 0 and 1 are left alone.
    """

    code, name, level, rank = "DAT005", "one token dominates the targets", "error", 7.2
    explained_by = "DAT004 DAT006 WIR008"
    warning, error = 0.5, 0.8  # of the target tokens
    different = 5  # tokens
    cures = (
        Cure(
            "Look whether the tokenizer makes one token of all that it does not know (DAT006) and whether targets "
            "are padded with a word of their own. A loss that wants the own source likelier than another's, and one"
            " for which what is certain counts little:",
            {"train.contrastive": 0.3, "train.focal": 2},
        ),
        Cure(
            "To let rare tokens come more often, or weigh more, is meant for few that dominate; where many words "
            "are rare it did harm:",
            {"train.resample_below": 0.01},
            {"train.token_weights": "effective_number"},
        ),
    )

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.parts:
            ids = np.concatenate([np.asarray(part.targets[int(i)]) for i in sample(len(part), 20 * SAMPLE)])
            counts = np.bincount(ids[ids != part.tokenizer.eos_id])
            if (counts > 0).sum() < self.different:
                continue
            token, share = int(counts.argmax()), counts.max() / counts.sum()
            if level := self.from_on(share):
                name = quoted(part.tokenizer.pieces([token])[0].strip() or "a space")
                yield self.finding(named(part, f"{name} is {100 * share:.0f} % of {counts.sum()} target tokens"), level)
