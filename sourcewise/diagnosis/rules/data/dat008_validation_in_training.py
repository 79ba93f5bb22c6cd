import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.features import SAMPLE
from sourcewise.diagnosis.pairs import Pairs, made_of_text, named, sample
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class ValidationInTraining(Rule[Pairs]):
    """The share of validation examples that are in the training set too: the same source text and target, or for
    features the same matrix. Beside it, the share whose source alone is.
    ## Why that is bad
    The figures then measure what was learned by heart; the best checkpoint is the most over-fitted one.
    ## Threshold and its origin
    Warning from {share:%} of the pairs (the sets of Multi30k share none). Ours. Sets that are the same on purpose get
    it too: their figures are those of the training set.
    """

    code, name, level = "DAT008", "validation examples in the training set", "warning"
    implied_by = "DAT011:error DAT012:error DAT014:error"  # then examples of both sets are alike, too
    share = 0.05  # of the validation examples
    cures = Cure("Set examples aside that are not trained on:", {"data.valid.pairs": "other.tsv"})

    def check(self, pairs: Pairs) -> Findings:
        if pairs.valid is None:
            raise CannotTell("validation examples in the training set", "there is no validation set to hold against it")
        if pairs.train.dataset.dims:
            yield from self.of_features(pairs.train, pairs.valid)
        elif not made_of_text(pairs.train, pairs.valid):
            yield from self.of_texts(pairs.train, pairs.valid)

    def of_texts(self, train: ExampleSet, valid: ExampleSet) -> Findings:
        """By source and target."""
        known = {(example.source, example.target) for example in train.dataset}
        sources = {source for source, _ in known}
        both = [example for example in valid.dataset if (example.source, example.target) in known]
        if len(both) >= self.share * len(valid):
            alike = sum(example.source in sources for example in valid.dataset)
            evidence = f"{100 * len(both) / len(valid):.0f} % of {len(valid)} validation pairs are in the training set"
            evidence += f", such as {both[0].where}; the sources of {100 * alike / len(valid):.0f} % are"
            yield self.finding(named(valid, evidence))

    def of_features(self, train: ExampleSet, valid: ExampleSet) -> Findings:
        """Matrices are compared where target and frames are the same: up to a sample of the validation set."""
        places = sample(len(valid), SAMPLE)
        asked = {(valid.dataset[int(i)].target, valid.dataset[int(i)].frames) for i in places}
        like: dict[tuple[str, int], list[int]] = {}
        for i, example in enumerate(train.dataset):
            if (example.target, example.frames) in asked:
                like.setdefault((example.target, example.frames), []).append(i)
        both = []
        for place in map(int, places):
            example = valid.dataset[place]
            candidates = like.get((example.target, example.frames), [])[:5]
            matrix = valid.dataset.features(place) if candidates else np.empty(0)
            if any(np.array_equal(matrix, train.dataset.features(i)) for i in candidates):
                both.append(example)
        if len(both) >= self.share * len(places):
            evidence = (
                f"{100 * len(both) / len(places):.0f} % of {len(places)} validation matrices are in the training set"
            )
            yield self.finding(named(valid, f"{evidence}, such as {both[0].where}"))
