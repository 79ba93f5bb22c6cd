from sourcewise.diagnosis.measures.features import MOSTLY, SAMPLE
from sourcewise.diagnosis.pairs import Pairs, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.model.builder import CONSTANT


class DeadFeatures(Rule[Pairs]):
    """The share of examples whose matrix is one number throughout (all zero), and of dimensions that never change, in
    up to {sample} examples.
    ## Why that is bad
    A constant says nothing: these examples can only be learned by heart, or as a language model.
    ## Threshold and its origin
    Error from {error:words} of the examples or where no dimension changes; warning from {warning:%} of the examples or
    {dimensions:words} of the dimensions. A dimension is constant that deviates by less than {constant}, as where
    features are standardised.
    """

    code, name, level, rank = "DAT011", "dead features", "error", 1.1
    warning, error = 0.01, MOSTLY  # of the examples
    dimensions, constant, sample = 0.5, CONSTANT, SAMPLE  # a share of them, a deviation, examples
    cures = Cure("Extract the features of these examples again, and look at one matrix before training.")

    def check(self, pairs: Pairs) -> Findings:
        for part, summary in pairs.features():
            flat, still = summary.flat, summary.still
            level = "error" if still.all() else self.from_on(float(flat.mean()))
            if level is None and still.mean() >= self.dimensions:
                level = "warning"
            if level:
                evidence = f"{100 * flat.mean():.0f} % of {len(flat)} matrices are one number throughout"
                if flat.any():
                    evidence += f", such as {part.dataset[int(summary.places[flat][0])].where}"
                evidence += f"; {still.sum()} of {len(still)} dimensions never change"
                yield self.finding(named(part, evidence), level)
