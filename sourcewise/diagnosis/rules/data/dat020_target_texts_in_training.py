from collections.abc import Sequence

from sourcewise.data.examples import Dataset
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.leaks import BITS, Rarity, Share, rows, seen_share
from sourcewise.diagnosis.pairs import Pairs, made_of_text
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import plain


class TargetTextsInTraining(Rule[Pairs]):
    """The share of validation and test examples whose target text is the target of a training example, with another
    source. Texts and features.
    ## Why that is bad
    Such a text can be said by heart as soon as the source resembles its own; the score on the others is lower, and it
    is the one that counts for new sources. `evaluate` gives both (OUT012).
    ## Threshold and its origin
    Sets with few different texts, such as digits and dates, share them by nature, as much as a training set shares with
    itself: what Good and Turing estimate from its texts that come once. Warning where the share is {excess:%} or more
    beyond that, and more than chance. Note where it is anything beyond that, and where texts that nobody writes twice
    by chance (of {bits} bits or more by the frequency of their words) are {note:%} of the set or more: greetings are
    {phoenix:%} of a validation set of weather forecasts. Ours; Multi30k and SIGMORPHON's pronunciations have
    less.
    """

    code, name, level = "DAT020", "target texts of the validation set in the training set", "warning"
    implied_by = "DAT004:error"
    excess, note, phoenix, bits = 0.05, 0.01, 0.048, BITS  # of the examples
    cures = Cure(
        "Leave these texts out of one of the sets, or quote the score on unseen texts too: evaluate prints both:",
        "sourcewise split ALL.tsv --alike text --valid 10% --test 10%",
    )

    def check(self, pairs: Pairs) -> Findings:
        train, held_out = pairs.train.dataset, pairs.held_out()
        if made_of_text(pairs.train):
            return
        targets = [[plain(example.target) for example in part.dataset] for part in pairs.train.parts]
        every = [text for part in targets for text in part]
        known: dict[str, str] = {}  # target → where it comes first
        for text, example in zip(every, train, strict=True):
            known.setdefault(text, example.where)
        both = set() if train.dims else {(example.source, text) for text, example in zip(every, train, strict=True)}
        usual = seen_share(targets)
        rarity = Rarity(list(known))
        said = [self.of(use, held, known, both, usual, rarity) for use, held in held_out]
        found = [each for each in said if each]
        if found:
            grave: Level = "warning" if any(level == "warning" for level, _ in found) else "note"
            yield self.finding("; ".join(words for _, words in found), grave)

    def of(
        self,
        use: str,
        held: Dataset,
        known: dict[str, str],
        both: set[tuple[str, str]],
        usual: Sequence[int],
        rarity: Rarity,
    ) -> tuple[Level, str] | None:
        """How grave it is for one set, and in words; None if it is as usual."""
        seen = [e for e in held if plain(e.target) in known and (e.source, plain(e.target)) not in both]
        share = Share(len(seen), len(held), *usual)
        telling = [e for e in seen if rarity.bits(plain(e.target)) >= BITS]
        if not share.excess and (len(telling) < 2 or len(telling) < self.note * len(held)):
            return None
        shown = telling or seen
        words = f"{len(seen):,} of {len(held):,} {use} targets are targets of the training set too"
        words += f", where {100 * share.usual_share:.1f} % are usual" if share.excess else ""
        if 0 < len(telling) < len(seen):
            words += f"; {len(telling):,} of them are no short ones"
        named = rows([(e.where, known[plain(e.target)]) for e in shown])
        return "warning" if share.excess >= self.excess else "note", f"{held.name}: {words}: {named}"
