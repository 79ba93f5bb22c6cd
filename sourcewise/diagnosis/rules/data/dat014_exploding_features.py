import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.features import SAMPLE, Summary
from sourcewise.diagnosis.pairs import Pairs, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.model.builder import CONSTANT


class ExplodingFeatures(Rule[Pairs]):
    """Examples that lie more than {times} times further from the middle of a dimension than nine of ten do, and than is
    usual in half of all dimensions; in up to {sample} examples.
    ## Why that is bad
    One such number sets the scale of its whole dimension, and the gradient of its batch.
    ## Threshold and its origin
    {times} times. Ours: in digits, fsdd and phoenix14t no example reaches 2 times as far as nine of ten. An error
    where, over the deviation that they cause, nine of ten examples stay within {left} in {dimensions:words} of the
    dimensions: standardised, nothing is left of these.
    """

    code, name, level, rank = "DAT014", "exploding features", "error", 7.4
    times = 100  # what nine of ten examples reach
    left, dimensions = 0.1, 0.5  # deviations, and a share
    sample = SAMPLE
    cures = Cure("Look at that example; extract it again, clip its features, or leave it out.")

    def check(self, pairs: Pairs) -> Findings:
        for part, summary in pairs.features():
            if not summary.constant:
                yield from self.of(part, summary)

    def of(self, part: ExampleSet, summary: Summary) -> Findings:
        """Examples that lie further out than what nine of ten reach, in their dimension and in half of them all."""
        centre = np.median(summary.means, axis=0)
        reach = np.maximum(np.abs(summary.lows - centre), np.abs(summary.highs - centre))
        usual = np.quantile(reach, 0.9, axis=0)
        far = reach > self.times * np.maximum(usual, max(float(np.median(usual)), CONSTANT))
        if not far.any():
            return
        row, dim = np.unravel_index(int(np.argmax(np.where(far, reach, 0))), far.shape)
        evidence = (
            f"{far.any(1).sum()} of {len(far)} examples, in {far.any(0).sum()} of {far.shape[1]} dimensions; "
            f"{part.dataset[int(summary.places[row])].where} reaches {reach[row, dim]:.3g} in dimension {dim}, "
            f"nine of ten examples stay within {usual[dim]:.3g}"
        )
        left = usual / np.maximum(summary.deviation, CONSTANT)
        drowned = (left < self.left).mean() >= self.dimensions
        if drowned:
            evidence += f"; over the deviation of all, they stay within {float(np.median(left)):.2g}"
        yield self.finding(named(part, evidence), "error" if drowned else "warning")
