import numpy as np

from sourcewise.diagnosis.pairs import Pairs, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class FeatureScale(Rule[Pairs]):
    """The root mean square of features as the bridge gets them: less its mean, over its deviation. These are the
    training set's own, those of the weights trained from, or none (bridge.normalize false).
    ## Why that is bad
    The bridge's weights, like embeddings, are drawn for numbers around 1. Far smaller ones vanish beside its biases;
    far larger ones saturate it, or are not the features that the weights know.
    ## Threshold and its origin
    Outside {least} to {most}. Ours: standardised features have 1, and one extractor's seldom differ by 10.
    """

    code, name, level, rank = "DAT013", "features on another scale", "warning", 7.3
    least, most = 0.1, 10  # root mean squares
    cures = Cure(
        "Let each dimension be standardised, or extract features as those the weights were trained on:",
        {"model.bridge.normalize": True},
    )

    def check(self, pairs: Pairs) -> Findings:
        if pairs.scale is None:
            return
        mean, deviation = pairs.scale
        for part, summary in pairs.features():
            energy = np.square(summary.deviation) + np.square(summary.mean - mean)
            size = float(np.sqrt((energy / np.square(deviation)).mean()))
            if not self.least <= size <= self.most and summary.deviation.any():
                evidence = f"as the bridge gets them, features have a root mean square of {size:.3g}"
                yield self.finding(named(part, evidence))
