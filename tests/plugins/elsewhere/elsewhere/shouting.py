from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class Shouting(Rule[Pairs]):
    """The share of the training targets that have letters, all of them capitals.
    ## Why that is bad
    Pretrained tokenizers cut capitals into many pieces, so that targets are long and rare.
    ## Threshold and its origin
    Warning from {most:%}. Ours.
    """

    code, name, level = "ELS001", "targets all in capitals", "warning"
    most = 0.5
    cures = Cure("Lower the case of both sides:", {"data.train.lowercase": True})

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.texts:
            loud = sum(example.target.isupper() for example in part.dataset) / len(part)
            if loud >= self.most:
                yield self.finding(f"{100 * loud:.0f} % of {len(part)} targets are all in capitals")
