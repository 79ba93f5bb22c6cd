from collections.abc import Sequence

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.near_copies import NEAR, Fingerprints, jaccard, near_copies, simplified
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.leaks import BITS, Rarity, Share, rows
from sourcewise.diagnosis.measures.near_clips import Clips, NearClip, near_clips
from sourcewise.diagnosis.pairs import Pairs, made_of_text, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule

Said = tuple[Level, str]
Pair = tuple[str, str]  # where an example of a set held out is, and where its near copy is


class NearCopiesAcrossSplits(Rule[Pairs]):
    """The share of validation and test sources that are near copies of training sources. Texts share {near:%} of their
    pieces of four characters or more, case and punctuation ignored; of {texts} training texts and {asked} others at
    most a sample is looked at. Clips of features share half of the shorter one's frames, moved by any number of frames,
    and differ there by less than {loose} of their own deviation, or by less than {tight} where many are as near as that
    by nature: copies with noise, crops, overlapping cuts of one recording. As many clips are looked at as take seconds.
    Exact pairs are told by DAT008.
    ## Why that is bad
    What is learned by heart is right on them; the figures do not say how well the model does on new sources.
    ## Threshold and its origin
    Templates, dates and captions are alike by nature. So the share is held against that of training sources (of up to
    {usual} texts, {clips} clips) that have a near copy in the rest of the training set. Warning where it is
    {excess:%} or more beyond that, and more than chance; a note where it is anything beyond that. A note too where
    {both:%} of the sources, of {bits} bits or more, have a near copy with the same target, of {target_bits} bits or
    more, however usual that is: sets that were augmented before they were split.
    Ours: Multi30k has 2.5 % near copies, the training set as many.
    """

    code, name, level = "DAT021", "near copies of sources in both splits", "warning"
    explained_by = "DAT019"
    implied_by = "DAT011:error DAT012:error DAT014:error DAT002:error"  # then all sources are alike
    excess, both = 0.05, 0.02  # of the examples
    near, tight, loose = NEAR, 0.2, 0.5
    bits, target_bits = BITS, 20  # of the words of texts that are no short ones
    texts, asked, usual = 200_000, 5_000, 2_000  # examples: of the training set, of others, for what is usual
    clips = 150  # for what is usual
    cures = Cure(
        "Split the data anew, what is alike kept together; clips by what they were cut from:",
        "sourcewise split ALL.tsv --alike source --valid 10% --test 10%\n"
        "  sourcewise split ALL.tsv --by recording --valid 10% --test 10%",
    )

    def check(self, pairs: Pairs) -> Findings:
        train, held_out = pairs.train.dataset, pairs.held_out()
        if made_of_text(pairs.train) or len(train) < pairs.fewest:
            return
        if train.dims:
            pairs.check_written()
            found = self.of_clips(train, held_out)
        else:
            found = self.of_texts(pairs.train, held_out)
        if found:
            grave: Level = "warning" if any(level == "warning" for level, _ in found) else "note"
            yield self.finding("; ".join(words for _, words in found), grave)

    def of_texts(self, train: ExampleSet, held_out: Sequence[tuple[str, Dataset]]) -> list[Said]:
        """By pieces of characters."""
        places = sample(len(train), self.texts)
        examples = [train.dataset[int(i)] for i in places]
        known = Fingerprints([e.source for e in examples])
        targets = [simplified(e.target) for e in examples]
        rarity, of_targets = Rarity(known.texts), Rarity(targets)
        usual = self.usual_texts(train, places, known, targets)
        said = []
        for use, held in held_out:
            chosen = [held[int(i)] for i in sample(len(held), self.asked)]
            asked, wanted = Fingerprints([e.source for e in chosen]), [simplified(e.target) for e in chosen]
            near, same = [], []
            for copy in near_copies(asked, known, labels=(wanted, targets)):
                mine, other = chosen[copy.place], examples[copy.other]
                alike = _alike(wanted[copy.place], targets[copy.other])
                if mine.source == other.source and mine.target == other.target:
                    continue  # DAT008
                near.append((mine.where, other.where))
                if alike:
                    target = self.bits / self.target_bits * of_targets.bits(wanted[copy.place])
                    bits = min(rarity.bits(asked.texts[copy.place]), target)
                    equal = wanted[copy.place] == targets[copy.other]
                    same.append(((mine.where, other.where), bits if equal else 0.0))
            said += self.told(held.name, f"{use} sources", len(chosen), near, same, usual)
        return said

    def usual_texts(
        self, train: ExampleSet, places: np.ndarray, known: Fingerprints, targets: list[str]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """(near copies in the rest of the training set, of so many), and the same with the same target.

        Of a mixture it is that of the task that has most.
        """
        shares = []
        start = 0
        for part in train.parts:
            own = np.flatnonzero((places >= start) & (places < start + len(part)))
            start += len(part)
            own = own[sample(len(own), self.usual)] if len(own) else own
            asked = Fingerprints([known.texts[i] for i in own])
            wanted = [targets[i] for i in own]
            found = near_copies(asked, known, labels=(wanted, targets), own=own.tolist())
            same = sum(_alike(wanted[copy.place], targets[copy.other]) for copy in found)
            shares.append((len(found), same, len(own)))
        most = max(shares, key=lambda each: each[0] / max(1, each[2]))
        most_same = max(shares, key=lambda each: each[1] / max(1, each[2]))
        return (most[0], most[2]), (most_same[1], most_same[2])

    def told(
        self,
        name: str,
        what: str,
        count: int,
        near: Sequence[Pair],
        same: Sequence[tuple[Pair, float]],
        usual: tuple[tuple[int, int], tuple[int, int]],
    ) -> list[Said]:
        """How grave near copies are beside what is usual, and in words; nothing where they are as usual."""
        shares = Share(len(near), count, *usual[0]), Share(len(same), count, *usual[1])
        excess = max(share.excess for share in shares)
        telling = [pair for pair, bits in same if bits >= self.bits]
        if not excess and (len(telling) < 2 or len(telling) < self.both * count):
            return []
        first = telling or [pair for pair, _ in same] or near
        if shares[0].excess and not shares[1].excess:
            first = near
        of_both = f", {len(same):,} with the same target," if same else ""
        words = f"{len(near):,} of {count:,} {what}{of_both} are near copies of training sources"
        words += f"; of these {100 * shares[0].usual_share:.1f} % have one among the others" if usual[0][1] else ""
        return [("warning" if excess >= self.excess else "note", f"{name}: {words}: {rows(first)}")]

    def of_clips(self, train: Dataset, held_out: Sequence[tuple[str, Dataset]]) -> list[Said]:
        """By windows of frames."""
        known = Clips(train)
        own = known.places[sample(len(known.places), self.clips)].tolist()
        usual: list[NearClip] | None = None
        said: list[Said] = []
        for use, held in held_out:
            places = sample(len(held), known.most_asked()).tolist()
            found = [clip for clip in near_clips(held, places, known) if not _exact(clip, held, train)]
            if _within(found, self.loose) < 2:
                continue
            if usual is None:  # only now, since it takes a while
                usual = near_clips(train, own, known, own=True)
            shares = {
                bound: Share(_within(found, bound), len(places), _within(usual, bound), len(own))
                for bound in (self.loose, self.tight)
            }
            bound = next((bound for bound, share in shares.items() if share.excess), None)
            if bound is None:
                continue
            near = sorted((clip for clip in found if clip.apart < bound), key=lambda clip: clip.place)
            words = f"{len(near):,} of {len(places):,} {use} clips are near copies or parts of training clips"
            if len(known.places) < len(train) or len(places) < len(held):
                words += f" (of {len(known.places):,} of {len(train):,} that were looked at)"
            shown = rows([(held[clip.place].where, _of(clip, train)) for clip in near])
            grave = shares[bound].excess >= self.excess
            said.append(("warning" if grave else "note", f"{held.name}: {words}: {shown}"))
        return said


def _alike(one: str, other: str) -> bool:
    """Whether two simplified texts are the same, or near copies."""
    return one == other or jaccard(one, other) >= NEAR


def _within(clips: Sequence[NearClip], bound: float) -> int:
    return sum(clip.apart < bound for clip in clips)


def _exact(clip: NearClip, held: Dataset, train: Dataset) -> bool:
    """Whether it is the same matrix with the same target, which DAT008 tells."""
    mine, other = held[clip.place], train[clip.other]
    return clip.apart == 0 and clip.frames == mine.frames == other.frames and mine.target == other.target


def _of(clip: NearClip, train: Dataset) -> str:
    """Where the training clip is, and how the two differ."""
    moved = f", {clip.frames} frames from {max(0, clip.shift)} on" if clip.shift else ""
    apart = f", {100 * clip.apart:.0f} % apart" if round(100 * clip.apart) else ""
    return f"{train[clip.other].where}{moved}{apart}"
