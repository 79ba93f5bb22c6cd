from itertools import pairwise

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.features import SAMPLE, Summary
from sourcewise.diagnosis.pairs import Pairs, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.model.builder import CONSTANT


class FeaturesAlike(Rule[Pairs]):
    """How much the matrices of two examples of nearest length differ over the frames both have, as a share of how much
    the two deviate from the middle of all: 1.4 where they have nothing to do with each other. In up to {sample}
    examples.
    ## Why that is bad
    Examples that look alike cannot be told apart; with different targets only chance can get them right.
    ## Threshold and its origin
    Error where the median is below {alike}; warning where {pairs:%} of the pairs differ by less than {identical} and
    have different targets. Ours: on digits, fsdd and phoenix14t the medians are 1.0 to 1.4, no pair is below 0.6.
    """

    code, name, level, rank = "DAT012", "features alike across examples", "error", 1.2
    explained_by = "DAT011 DAT029"
    alike, pairs, identical, sample = 0.1, 0.05, 0.001, SAMPLE
    cures = Cure(
        "Check that the extractor was given the clip of each row, not one clip for all, and not its first frame."
    )

    def check(self, pairs: Pairs) -> Findings:
        for part, summary in pairs.features():
            if not summary.constant:
                yield from self.of(part, summary)

    def of(self, part: ExampleSet, summary: Summary) -> Findings:
        """Neighbours by length, frame by frame, relative to how far both lie from the middle of all."""
        living = summary.places[~summary.flat]
        order = living[np.argsort(part.source_lengths[living], kind="stable")]
        centre = np.median(summary.means, axis=0)
        differences, twins = [], []
        before = part.dataset.features(int(order[0]))
        for left, right in pairwise(order):
            after = part.dataset.features(int(right))
            frames = min(len(before), len(after), part.max_frames)
            both = np.stack((before[:frames], after[:frames])).astype(np.float64)
            apart = float(np.sqrt(np.square(both[0] - both[1]).mean()))
            differences.append(apart / max(float(np.sqrt(np.square(both - centre).mean())), CONSTANT))
            if differences[-1] < self.identical and part.dataset[int(left)].target != part.dataset[int(right)].target:
                twins.append((int(left), int(right)))
            before = after
        median = float(np.median(differences))
        evidence = f"two of {len(order)} matrices, of nearest length, differ by {median:.2g} of their deviation"
        if median < self.alike:
            yield self.finding(named(part, evidence))
        elif len(twins) >= self.pairs * len(differences):
            one, other = (part.dataset[i] for i in twins[0])
            evidence += (
                f"; {100 * len(twins) / len(differences):.0f} % do not differ at all, but their targets do, such as "
            )
            yield self.finding(named(part, f"{evidence}{one.where} and {other.where}"), "warning")
