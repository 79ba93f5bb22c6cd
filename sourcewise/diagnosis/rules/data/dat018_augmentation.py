import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.data.noise.features import Augmenter
from sourcewise.diagnosis.pairs import Pairs, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class Augmentation(Rule[Pairs]):
    """Of features, the squared correlation of augmented sources with what they were (masks and noise, not speed), over
    {examples} examples; of texts, the share of tokens that is neither left out nor masked.
    ## Why that is bad
    What a source says is gone before the network sees it: it learns to do without, as a language model does.
    ## Threshold and its origin
    Error below {error}, warning below {warning}. SpecAugment's strongest policy for LibriSpeech (Park et al. 2019)
    leaves 0.6, noise of one standard deviation 0.5, BART's text infilling (Lewis et al. 2020) 0.7.
    """

    code, name, level = "DAT018", "augmentation leaves little of the sources", "error"
    warning, error = 0.3, 0.1
    examples = 32
    cures = Cure(
        "Fewer and narrower masks, less noise:",
        {"train.augment.time_masks": 2, "train.augment.time_width": 10, "train.augment.noise": 0.3},
        {"train.text_noise.drop": 0.1, "train.text_noise.mask": 0.1},
    )

    def check(self, pairs: Pairs) -> Findings:
        if pairs.kept is not None and (level := self.below(pairs.kept)):
            what = "the share of source tokens that are neither left out nor masked"
            yield self.finding(f"{what} is {pairs.kept:.2g}", level)
        parts = [part for part in pairs.train.parts if part.dataset.dims]
        if pairs.augmenter is not None and parts:
            share = min(self.left(part, pairs.augmenter) for part in parts)
            if level := self.below(share):
                yield self.finding(
                    f"the squared correlation of augmented features with what they were is {share:.2g}", level
                )

    def left(self, examples: ExampleSet, augmenter: Augmenter) -> float:
        """Squared correlation of augmented features with the original, both about the set's mean; 1: unchanged."""
        rng, sums = np.random.default_rng(0), np.zeros(3)
        for place in sample(len(examples), self.examples):
            matrix = examples.read(int(place))
            x, y = ((each - augmenter.mean) / augmenter.deviation for each in (matrix, augmenter(matrix, rng)))
            sums += [float((x * y).sum()), float((x * x).sum()), float((y * y).sum())]
        return float(sums[0] ** 2 / (sums[1] * sums[2])) if sums[1] * sums[2] else 0.0
