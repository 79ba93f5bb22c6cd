import numpy as np

from sourcewise.data.examples import Dataset
from sourcewise.diagnosis.measures.features import SAMPLE
from sourcewise.diagnosis.measures.leaks import Share
from sourcewise.diagnosis.pairs import Pairs, made_of_text, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class ValidationInTraining(Rule[Pairs]):
    """The share of validation and test examples that are in the training set too: the same source text and target, or
    for features the same matrix. Beside it, the share whose source alone is.
    ## Why that is bad
    The figures then measure what was learned by heart; the best checkpoint is the most over-fitted one.
    ## Threshold and its origin
    Warning from {share:%} of the pairs (the sets of Multi30k share none); a note below, where they are more than the
    training set holds twice by itself. Ours. Sets that are the same on purpose get it too: their figures are those of
    the training set. Copies that are not exact are told by DAT021, texts of targets by DAT020.
    """

    code, name, level = "DAT008", "validation examples in the training set", "warning"
    implied_by = "DAT011:error DAT012:error DAT014:error"  # then examples of both sets are alike, too
    share = 0.05  # of the validation examples
    cures = Cure("Set examples aside that are not trained on:", {"data.valid.pairs": "other.tsv"})

    def check(self, pairs: Pairs) -> Findings:
        held_out = pairs.held_out()
        train = pairs.train.dataset
        if made_of_text(pairs.train):
            return
        for use, held in held_out:
            if train.dims:
                yield from self.of_features(train, held, use)
            else:
                yield from self.of_texts(train, held, use)

    def of_texts(self, train: Dataset, held: Dataset, use: str) -> Findings:
        """By source and target."""
        known = {(example.source, example.target) for example in train}
        sources = {source for source, _ in known}
        both = [example for example in held if (example.source, example.target) in known]
        usual = len(train) - len(known)
        if len(both) >= self.share * len(held) or Share(len(both), len(held), usual, len(train)).excess:
            alike = sum(example.source in sources for example in held)
            evidence = f"{percent(len(both), len(held))} % of {len(held)} {use} pairs are in the training set"
            evidence += f", such as {both[0].where}; the sources of {percent(alike, len(held))} % are"
            grave = len(both) >= self.share * len(held)
            yield self.finding(f"{held.name}: {evidence}", "warning" if grave else "note")

    def of_features(self, train: Dataset, held: Dataset, use: str) -> Findings:
        """Matrices are compared where target and frames are the same: up to a sample of the set that is held out."""
        places = sample(len(held), SAMPLE)
        asked = {(held[int(i)].target, held[int(i)].frames) for i in places}
        like: dict[tuple[str, int], list[int]] = {}
        for i, example in enumerate(train):
            if (example.target, example.frames) in asked:
                like.setdefault((example.target, example.frames), []).append(i)
        both = []
        for place in map(int, places):
            example = held[place]
            candidates = like.get((example.target, example.frames), [])[:5]
            matrix = held.features(place) if candidates else np.empty(0)
            if any(np.array_equal(matrix, train.features(i)) for i in candidates):
                both.append(example)
        if len(both) >= 2 or len(both) >= self.share * len(places):
            evidence = f"{percent(len(both), len(places))} % of {len(places)} {use} matrices are in the training set"
            grave = len(both) >= self.share * len(places)
            yield self.finding(f"{held.name}: {evidence}, such as {both[0].where}", "warning" if grave else "note")


def percent(part: int, whole: int) -> str:
    """A share in percent, of small ones one more digit."""
    share = 100 * part / whole
    return f"{share:.0f}" if share >= 1 or not part else f"{share:.1g}"
